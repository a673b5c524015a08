"""The roster: which devices a fleet is made of, what they speak, and by which credentials they connect.

A CSV file with a head line, or a JSON array of objects, with the fields of RosterDevice; or the demo's `demo.json`.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated, Final, Literal, get_args

import msgspec

from firmware_sim.signals import PROFILES
from tidegate.console import UserError

PORT_MAX: Final = 65_535
UNIT_MAX: Final = 247
"""Of Modbus."""

Protocol = Literal["mqtt", "coap", "http", "tcp", "udp", "serial", "modbus"]
PROTOCOLS: Final[tuple[Protocol, ...]] = get_args(Protocol)
SharedProtocol = Literal["mqtt", "coap", "http", "tcp"]
"""By the others, a device has a listener of its own on the demo, as it would have on most sites."""
WITH_PASSWORD: Final[tuple[Protocol, ...]] = ("mqtt", "coap", "http")
"""Devices of the others are known by their line, their login or their payload."""
OF_ONE_PLACE: Final[tuple[Protocol, ...]] = ("serial", "modbus")
"""The gateway goes to where each device is."""


class RosterDevice(msgspec.Struct, frozen=True):
    """One device. A field that is left out takes the fleet's own value."""

    name: str
    """Its alias, and its MQTT client id."""
    user: str = ""
    """MQTT, HTTP; empty: the name."""
    password: str = ""
    network: str = "demo"
    alias_key: str = "serial"
    keyed: bool = True
    """The network names boot and seq as its message key."""
    profile: str = "pump"
    host: str = ""
    port: Annotated[int, msgspec.Meta(ge=0, le=PORT_MAX)] = 0
    """Of the gateway's listener; of a Modbus unit: where it listens itself, and the gateway connects to."""
    protocol: Protocol = "mqtt"
    path: str = ""
    """CoAP, HTTP: of its resource, {name} standing for the name; empty: {name}. Serial: of the link to its
    pseudo-terminal, which is made for it and which the gateway opens."""
    login: str = "ID {name}"
    """TCP: the first frame; empty: there is none, and the payload holds the name under the alias key, as it always does
    by UDP."""
    unit: Annotated[int, msgspec.Meta(ge=1, le=UNIT_MAX)] = 1
    """Modbus: its address."""

    @property
    def names_itself(self) -> bool:
        """In each payload: nothing else says who it is."""
        return self.protocol == "udp" or (self.protocol == "tcp" and not self.login)


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
        remedy = (
            f"--count {path} is for how many devices" if str(path).isdecimal() else "name a CSV or JSON list of devices"
        )
        raise UserError(f"there is no file {path}", remedy) from None
    except (msgspec.MsgspecError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{path}: {error}",
            f"a list of devices has the fields {', '.join(RosterDevice.__struct_fields__)}",
        ) from None
    check_roster(devices, str(path))
    return devices


def check_roster(devices: list[RosterDevice], source: str) -> None:
    """Raises UserError naming the device and what is wrong with it."""
    if not devices:
        raise UserError(f"{source} names no device")
    identities: set[tuple[str, str, str]] = set()
    places: dict[str, str] = {}
    for device in devices:
        if device.profile not in PROFILES:
            raise UserError(f"{source}: no profile {device.profile!r}", f"one of {', '.join(PROFILES)}")
        identity = (device.network, device.alias_key, device.name)
        if identity in identities:
            raise UserError(f"{source}: {device.name} of network {device.network} is named twice")
        identities.add(identity)
        place = _own_place(device, source)
        if place in places:
            raise UserError(f"{source}: {device.name} and {places[place]} are both {place}", "give each one of its own")
        if place:
            places[place] = device.name


def _own_place(device: RosterDevice, source: str) -> str:
    """What no other device may have; empty: nothing."""
    name, protocol = device.name, device.protocol
    if device.path and protocol not in ("coap", "http", "serial"):
        raise UserError(f"{source}: {name} has a path, which {protocol} has no use for", "leave it out")
    if protocol == "serial":
        if not device.path:
            raise UserError(f"{source}: {name} has no path", "path: where the link to its pseudo-terminal is to be")
        return f"at {device.path}"
    if protocol == "modbus":
        if not device.port:
            raise UserError(f"{source}: {name} has no port", "port: where the unit is to listen")
        return f"unit {device.unit} at port {device.port}"
    return ""
