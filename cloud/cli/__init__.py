"""`tidegate-cloud`: one file a command."""

from __future__ import annotations

from typing import Annotated, NoReturn

import typer

from cloud.cli import config, rejects, user
from cloud.cli.curate import curate
from cloud.cli.history import history
from cloud.cli.import_file import import_file
from cloud.cli.run import run
from cloud.cli.where import where
from tidegate.console import run_app, version_option

app = typer.Typer(
    name="tidegate-cloud", help="The cloud platform of Tidegate.", no_args_is_help=True, pretty_exceptions_enable=False
)


@app.callback()
def _root(version: Annotated[bool, version_option("tidegate-cloud")] = False) -> None:
    """The cloud platform of Tidegate."""


app.command()(run)
app.command()(where)
app.command()(history)
app.command("import")(import_file)
app.command()(curate)
app.add_typer(config.app, name="config")
app.add_typer(rejects.app, name="rejects")
app.add_typer(user.app, name="user")


def main() -> NoReturn:
    run_app(app)
