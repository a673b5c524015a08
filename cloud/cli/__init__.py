"""`tidegate-cloud`: one file a command."""

from __future__ import annotations

from typing import Annotated

import typer

from cloud.cli import run, user
from tidegate.console import run_app, version_option

app = typer.Typer(name="tidegate-cloud", help="The cloud platform of Tidegate.", no_args_is_help=True)


@app.callback()
def _root(version: Annotated[bool, version_option("tidegate-cloud")] = False) -> None:
    """The cloud platform of Tidegate."""


app.command("run")(run.run)
app.add_typer(user.app, name="user")


def main() -> None:
    run_app(app)
