"""`tidegate-edge config`: what is in force, or what is wrong with it."""

from __future__ import annotations

import typer

from edge.cli.options import AsJson, ConfigFile, DataDir, load_config
from edge.config import EdgeConfig
from edge.listeners.catalog import KINDS

app = typer.Typer(help="The configuration.", no_args_is_help=True)


@app.callback()
def _root() -> None:
    """The configuration."""


@app.command()
def check(config_file: ConfigFile = None, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Print what is in force, of listeners what is not at its default; or say file, line, setting and limit of what is
    wrong."""
    from tidegate.in_force import show_in_force

    config = load_config(config_file, data_dir)
    _check_files(config)
    show_in_force(config, as_json=as_json)


def _check_files(config: EdgeConfig) -> None:
    """Raises UserError for the first file that the configuration names and that cannot be read."""
    from tidegate.console import UserError

    named = [("link.ca_file", "", config.link.ca_file)]
    for kind in KINDS:
        for place, listener in enumerate(getattr(config, kind)):
            whose = f" of listener {listener.name!r}"
            named += [(f"{kind}[{place}].{setting}", whose, str(path)) for setting, path in listener.files.items()]
    for setting, whose, path in named:
        if not path:
            continue
        try:
            with open(path, "rb"):
                pass
        except OSError as error:
            raise UserError(
                f"{setting}{whose}: {path}: {error.strerror}", "give the path of a PEM file that this user may read"
            ) from None
