"""`tidegate-edge config`: what is in force, or what is wrong with it."""

from __future__ import annotations

import typer

from edge.cli.options import AsJson, ConfigFile, DataDir, load_config

app = typer.Typer(help="The configuration.", no_args_is_help=True)


@app.callback()
def _root() -> None:
    """The configuration."""


@app.command()
def check(config_file: ConfigFile = None, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Print what is in force; say file, line, setting and limit of what is wrong."""
    from tidegate.in_force import show_in_force

    show_in_force(load_config(config_file, data_dir), as_json=as_json)
