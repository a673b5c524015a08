"""`tidegate-cloud user`: people who sign in."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from cloud.cli.options import AsJson, ConfigFile, DataDir, load_config
from tidegate import loop
from tidegate.console import print_json

app = typer.Typer(help="People who sign in.", no_args_is_help=True)


@app.callback()
def _root() -> None:
    """People who sign in."""


@app.command()
def reset(
    name: Annotated[str, typer.Argument(help="Whose password; `admin` is made if nobody is there yet.")],
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Give a user a new password, and show it once."""
    config = load_config(config_file, data_dir)
    from cloud.app import reset_user

    password = ""

    async def main(stop: asyncio.Event) -> None:
        nonlocal password
        password = await reset_user(config, name)

    loop.run(main)
    if as_json:
        print_json({"user": name, "password": password})
    else:
        print(f"{name} / {password}")
