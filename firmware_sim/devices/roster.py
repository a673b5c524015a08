"""The roster: which devices a fleet is made of, and by which credentials they connect.

A CSV file with a head line, or a JSON array of objects, with the fields of RosterDevice; or the demo's `demo.json`.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated, Final

import msgspec

from firmware_sim.signals import PROFILES
from tidegate.console import UserError

PORT_MAX: Final = 65_535


class RosterDevice(msgspec.Struct, frozen=True):
    """One device. A field that is left out takes the fleet's own value."""

    name: str
    """Its alias, and its MQTT client id."""
    user: str = ""
    """Empty: the name."""
    password: str = ""
    network: str = "demo"
    alias_key: str = "serial"
    keyed: bool = True
    """The network names boot and seq as its message key."""
    profile: str = "pump"
    host: str = ""
    port: Annotated[int, msgspec.Meta(ge=0, le=PORT_MAX)] = 0


def read_roster(path: Path) -> list[RosterDevice]:
    """Raises UserError naming file, place and reason."""
    try:
        if path.suffix == ".csv":
            with path.open(newline="", encoding="utf-8") as file:
                rows = [{name: value for name, value in row.items() if name and value} for row in csv.DictReader(file)]
            devices = msgspec.convert(rows, type=list[RosterDevice], strict=False)
        else:
            devices = msgspec.json.decode(path.read_bytes(), type=list[RosterDevice])
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{path}: {error}",
            f"a list of devices has the fields {', '.join(RosterDevice.__struct_fields__)}",
        ) from None
    check_roster(devices, str(path))
    return devices


def check_roster(devices: list[RosterDevice], source: str) -> None:
    if not devices:
        raise UserError(f"{source} names no device")
    seen: set[tuple[str, str, str]] = set()
    for device in devices:
        if device.profile not in PROFILES:
            raise UserError(f"{source}: no profile {device.profile!r}", f"one of {', '.join(PROFILES)}")
        identity = (device.network, device.alias_key, device.name)
        if identity in seen:
            raise UserError(f"{source}: {device.name} of network {device.network} is named twice")
        seen.add(identity)
