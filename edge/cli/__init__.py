"""`tidegate-edge`: one file a command. What a command needs is imported when it runs: `run` has a budget of memory."""

from __future__ import annotations

from typing import Annotated, NoReturn

import typer

from edge.cli import config, log, service
from edge.cli.commands import commands
from edge.cli.decode import decode
from edge.cli.devices import devices
from edge.cli.doctor import doctor
from edge.cli.enroll import enroll
from edge.cli.reload import reload
from edge.cli.run import run
from edge.cli.status import status
from edge.cli.tail import tail
from edge.cli.trial import trial
from edge.cli.where import where
from tidegate.console import run_app, version_option

app = typer.Typer(
    name="tidegate-edge", help="The gateway of Tidegate.", no_args_is_help=True, pretty_exceptions_enable=False
)


@app.callback()
def options(version: Annotated[bool, version_option("tidegate-edge")] = False) -> None:
    """The gateway of Tidegate."""


for command in (commands, decode, devices, doctor, enroll, reload, run, status, tail, where):
    app.command()(command)
app.command("test")(trial)
app.add_typer(config.app, name="config")
app.add_typer(log.app, name="log")
app.add_typer(service.app, name="service")


def main() -> NoReturn:
    run_app(app)
