"""`tidegate-edge run`: the gateway."""

from __future__ import annotations

import asyncio

from edge.cli.options import ConfigFile, DataDir, load_config


def run(config_file: ConfigFile = None, data_dir: DataDir = None) -> None:
    """Run the gateway until Ctrl-C or SIGTERM. At SIGHUP it reads its configuration again."""
    from edge.app import run_gateway
    from edge.memory import share_one_arena
    from tidegate import logs, loop

    share_one_arena()
    config = load_config(config_file, data_dir)
    logs.configure(level=config.log_level)

    async def main(stop: asyncio.Event) -> None:
        await run_gateway(config, stop, lambda: load_config(config_file, data_dir))

    loop.run(main)
