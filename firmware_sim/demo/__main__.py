"""`python -m firmware_sim.demo`"""

from __future__ import annotations

import os
from typing import Annotated, Final

import typer

from firmware_sim.cli.options import DEFAULT_RUN_FOLDER, RunFolder
from firmware_sim.demo.app import Demo
from firmware_sim.demo.screen import Screen
from tidegate.console import run_app
from tidegate.loop import run

SETUP_VARIABLE: Final = "TIDEGATE_SETUP_SECONDS"
"""How long `make` took to install the dependencies; unset or empty if they were there."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def demo(
    run_folder: RunFolder = DEFAULT_RUN_FOLDER,
    devices: Annotated[
        int, typer.Option(min=2, max=1000, help="How many are simulated by MQTT, beside one of each other protocol.")
    ] = 20,
    rate_each: Annotated[float, typer.Option(min=0.01, max=100.0, help="Messages a second of each.")] = 1.0,
) -> None:
    """Start cloud, gateway and simulated devices; Ctrl-C ends them; data stays in the folder."""
    screen = Screen()
    setup_s = os.environ.get(SETUP_VARIABLE, "")
    if setup_s:
        screen.part("environment", f"{setup_s} s, first time only")

    run(Demo(run_folder.resolve(), screen, devices=devices, rate_each=rate_each).run)


if __name__ == "__main__":
    run_app(app)
