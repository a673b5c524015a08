"""`tidegate-cloud run [SERVICE …]`: all services, or those that are named."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer

from cloud.cli.options import ConfigFile, DataDir, load_config, same_options
from tidegate import loop


def run(
    services: Annotated[list[str] | None, typer.Argument(help="Services to run here; all without a name.")] = None,
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Run the cloud: with the embedded PostgreSQL and NATS, or with those that the configuration names."""
    config = load_config(config_file, data_dir)
    from cloud.app import FIRST_USER, SERVICES, run_cloud  # a second's worth of imports: a mistake is told before

    first_sign_in = f"tidegate-cloud user reset {FIRST_USER}{same_options(config_file, data_dir)}"

    async def main(stop: asyncio.Event) -> None:
        await run_cloud(config, services or SERVICES, stop, _progress, first_sign_in)

    loop.run(main)


def _progress(part: str, text: str) -> None:
    print(f"{part:<13} {text}", file=sys.stderr, flush=True)
