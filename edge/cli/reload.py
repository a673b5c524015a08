"""`tidegate-edge reload`: has the running gateway read its configuration again, without dropping devices."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Final

import typer

from edge.cli.options import AsJson, ConfigFile, DataDir

if TYPE_CHECKING:
    from edge.reload import Reloaded

WAIT_S: Final = 60.0
"""Listeners that change let their devices' messages be answered first, which has a limit far below this."""
ASK_S: Final = 0.1


def reload(config_file: ConfigFile = None, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Read the configuration again: listeners that did not change keep their connections. Exit code 1 where it was
    refused, or a listener could not be changed."""
    from edge.cli.gateway import RunningGateway
    from edge.reload import Reloaded
    from tidegate.console import UserError, print_json

    gateway = RunningGateway(config_file, data_dir)  # a file that cannot be used is told here, before anybody is asked
    before = gateway.get("/reload", Reloaded).number
    try:
        os.kill(gateway.pid, signal.SIGHUP)
    except PermissionError:
        raise UserError(
            f"process {gateway.pid} is another user's", "run this as the gateway's user, or as root"
        ) from None
    ends_s = time.monotonic() + WAIT_S
    while (seen := gateway.get("/reload", Reloaded)).number == before:
        if time.monotonic() > ends_s:
            raise UserError(f"the gateway is not done after {WAIT_S:g} s", "look into its output")
        time.sleep(ASK_S)
    if as_json:
        print_json(seen)
    elif seen.refused:
        raise UserError(f"refused, nothing was changed: {seen.refused}", seen.remedy)
    else:
        for line in lines(seen):
            print(line)
    if not seen.is_in_force:
        raise typer.Exit(1)


def lines(seen: Reloaded) -> list[str]:
    """For people."""
    found = [
        f"{change.name}: {change.what}{f': {change.reason}' if change.reason else ''}" for change in seen.listeners
    ]
    if seen.needs_restart:
        found.append(f"takes effect at the next start: {', '.join(seen.needs_restart)}")
    found = found or ["nothing to change"]
    return [*found, seen.note] if seen.note else found
