"""`tidegate-edge devices`: whom the running gateway hears."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from edge.cli.options import AsJson, ConfigFile, DataDir

if TYPE_CHECKING:
    from edge.status.latest import DeviceValues

COLUMNS: Final = {
    "device": "device",
    "known": "known",
    "listener": "listener",
    "heard": "heard",
    "messages": "messages",
    "rate": "rate",
    "rejected": "rejected",
    "error": "last error",
}


def devices(
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
    listener: Annotated[str, typer.Option("--listener", help="Only what this listener hears.")] = "",
    as_json: AsJson = False,
) -> None:
    """Show the devices that were heard, those that spoke last first: known or not, how often, and what was wrong."""
    from edge.cli.gateway import RunningGateway
    from edge.status.latest import DevicesHeard
    from tidegate.console import show

    heard = RunningGateway(config_file, data_dir).get("/latest", DevicesHeard)
    show(
        [row(device) for device in heard.devices if listener in ("", device.listener)], columns=COLUMNS, as_json=as_json
    )
    if heard.forgotten and not as_json:
        print(f"{heard.forgotten:,} more made room for these; the cloud shows all", file=sys.stderr)


def row(device: DeviceValues) -> Mapping[str, Any]:
    """For the table; as JSON it has more than the table's columns."""
    from edge.cli.status import duration

    name = f"{device.network}:{device.alias_key}:{device.alias}"
    return {
        "device": name,
        "known": f"device {device.device_id}" if device.device_id else "no",
        "listener": device.listener,
        "heard": f"{duration(device.quiet_ms)} ago",
        "messages": device.messages,
        "rate": rate(device.per_min),
        "rejected": device.rejected,
        "error": device.last_error,
        "network": device.network,
        "alias_key": device.alias_key,
        "alias": device.alias,
        "device_id": device.device_id,
        "blueprint": device.blueprint,
        "received_time": device.received_time,
        "quiet_ms": device.quiet_ms,
        "per_min": device.per_min,
    }


def rate(per_min: float | None) -> str:
    """`12.0/s`, `6.0/min`, `3.0/h`; empty where nobody can tell."""
    if per_min is None:
        return ""
    if per_min >= 57:  # a device that sends each second is never quite at 60
        return f"{per_min / 60:,.1f}/s"
    return f"{per_min:.1f}/min" if per_min >= 1 else f"{60 * per_min:.1f}/h"
