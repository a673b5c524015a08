"""`tidegate-edge commands`: what the running gateway has for devices, and how it stands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from edge.cli.options import AsJson, ConfigFile, DataDir

if TYPE_CHECKING:
    from edge.status.commands import CommandShown

COLUMNS: Final = {
    "id": "id",
    "device": "device",
    "name": "name",
    "state": "state",
    "text": "why",
    "left": "deadline in",
    "sends": "sends",
    "told": "cloud knows",
}


def commands(
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
    waiting: Annotated[bool, typer.Option("--waiting", help="Only those that have not ended.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show commands to devices: what waits and for what, and what became of the last ones.

    Their answers go to the cloud, which shows them with the command: GET /api/v1/devices/{device}/commands."""
    from edge.cli.gateway import RunningGateway
    from edge.status.commands import CommandsShown
    from tidegate.console import show

    shown = RunningGateway(config_file, data_dir).get("/commands", CommandsShown)
    show([row(one) for one in shown.commands if one.waits or not waiting], columns=COLUMNS, as_json=as_json)


def row(command: CommandShown) -> Mapping[str, Any]:
    """For the table; as JSON it has more than the table's columns."""
    from edge.cli.status import duration

    return {
        "id": command.id,
        "device": command.device,
        "name": command.name,
        "state": command.state,
        "text": command.text,
        "left": duration(max(command.left_ms, 0)) if command.waits else "",
        "sends": command.sends,
        "told": "yes" if command.is_told else "not yet",
        "device_id": command.device_id,
        "deadline": command.deadline,
        "came_time": command.came_ms,
        "state_time": command.state_ms,
        "left_ms": command.left_ms,
        "waits": command.waits,
    }
