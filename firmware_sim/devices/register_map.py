"""What stands in the holding registers of a Modbus unit of ours, as a gateway's configuration names it. Pure.

0, 1      boot              u32, the high half first, as all that takes several registers
2, 3      seq               u32
4 to 7    time              u64, Unix ms
8 on      what the profile measures, in its order: number f32, boolean u16, string of 16 bytes, geoposition two f32
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from firmware_sim.signals import Attribute, Profile, Value

TEXT_BYTES: Final = 16
SEQ_ADDRESS: Final = 2


class Place(msgspec.Struct, frozen=True):
    """One attribute's; `to_builtins` is its table in a gateway's configuration."""

    name: str
    address: int
    type: str
    length: int | msgspec.UnsetType = msgspec.UNSET
    digits: int | msgspec.UnsetType = msgspec.UNSET


class RegisterMap:
    def __init__(self, profile: Profile) -> None:
        self._attributes = profile.attributes
        self.places: list[Place] = []
        at = 0
        for name, type_, registers in (("boot", "u32", 2), ("seq", "u32", 2), ("time", "u64", 4)):
            self.places.append(Place(name, at, type_))
            at += registers
        for attribute in profile.attributes:
            places = _places(attribute, at)
            self.places += places
            at += sum(_REGISTERS[place.type] for place in places)
        self.count = at
        """Registers in all: from 0 to one less."""

    def tables(self) -> list[dict[str, Any]]:
        """The `registers` of a unit in a gateway's configuration."""
        found: list[dict[str, Any]] = msgspec.to_builtins(self.places)
        return found

    def encode(self, values: Mapping[str, Value]) -> bytes:
        """Two bytes a register. `values` as a device measures them; what is missing is zero."""
        out = struct.pack(">IIQ", values["boot"], values["seq"], values["time"])
        return out + b"".join(_encoded(attribute, values.get(attribute.name)) for attribute in self._attributes)


_REGISTERS: Final = {"u16": 1, "f32": 2, "string": TEXT_BYTES // 2}
_DIGITS: Final = 3
"""Behind the point: as many as sensors have, and none that a float of 32 bits adds."""


def _places(attribute: Attribute, at: int) -> list[Place]:
    if attribute.kind == "boolean":
        return [Place(attribute.name, at, "u16")]
    if attribute.kind == "string":
        return [Place(attribute.name, at, "string", length=TEXT_BYTES)]
    if attribute.kind == "geoposition":
        parts = ("lat", "lon")
        return [Place(f"{attribute.name}_{part}", at + 2 * number, "f32") for number, part in enumerate(parts)]
    return [Place(attribute.name, at, "f32", digits=_DIGITS)]


def _encoded(attribute: Attribute, value: Value | None) -> bytes:
    if attribute.kind == "boolean":
        return struct.pack(">H", bool(value))
    if attribute.kind == "string":
        return struct.pack(f">{TEXT_BYTES}s", str(value or "").encode())
    if attribute.kind == "geoposition":
        found = value if isinstance(value, dict) else {}
        return struct.pack(">ff", found.get("lat", 0.0), found.get("lon", 0.0))
    return struct.pack(">f", value or 0)
