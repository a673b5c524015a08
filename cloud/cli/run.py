"""`tidegate-cloud run [SERVICE …]`: all services, or those that are named."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer

from cloud.cli.options import ConfigFile, DataDir, load_config
from tidegate import loop


def run(
    services: Annotated[list[str] | None, typer.Argument(help="Services to run here; all without a name.")] = None,
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Run the cloud: with the embedded PostgreSQL and NATS, or with those that the configuration names."""
    from cloud.app import SERVICES, run_cloud

    config = load_config(config_file, data_dir)

    async def main(stop: asyncio.Event) -> None:
        await run_cloud(config, services or SERVICES, stop, _progress)

    loop.run(main)


def _progress(part: str, text: str) -> None:
    print(f"{part:<13} {text}", file=sys.stderr, flush=True)
