"""`tidegate-sim`: simulated devices, one file a command."""

from __future__ import annotations

from typing import Annotated, NoReturn

import typer

from firmware_sim.cli.fleet import fleet
from firmware_sim.cli.scenario import scenario
from firmware_sim.cli.send import send
from firmware_sim.cli.unplug import unplug
from firmware_sim.cli.verify import verify
from tidegate.console import run_app, version_option

app = typer.Typer(
    name="tidegate-sim",
    help="Simulated devices, faults, and the proof that nothing was lost.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def options(version: Annotated[bool, version_option("tidegate-sim")] = False) -> None:
    """What holds for all commands."""


for command in (fleet, scenario, send, unplug, verify):
    app.command()(command)


def main() -> NoReturn:
    run_app(app)
