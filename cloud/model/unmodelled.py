"""What devices say beyond their blueprint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from cloud.model.attribute import Attribute, AttributeType, MisfitError, fitting, name_of, path_or_name
from cloud.model.series import Path

_TYPES: Final[dict[str, AttributeType]] = {"number": "number", "string": "string", "boolean": "boolean"}
"""JSON's types to those of attributes; what is not here is an object, or nothing that an attribute can be."""


class Seen(msgspec.Struct, frozen=True):
    """Values of one path and one JSON type."""

    path: Path
    kind: str
    """As JSON has it: string, number, boolean, object, array."""
    devices: int
    example: bytes | None
    """JSON; None: all of them are long."""


class Unmodelled(msgspec.Struct, frozen=True):
    name: str
    """Its path, as an attribute would be called."""
    devices: int
    """That have such a current value."""
    kinds: dict[str, int]
    """Devices by the JSON type of the value, the most frequent first."""
    type: AttributeType | None
    """What an attribute for most of them would be; None: there is no such type, as for arrays."""
    example: bytes | None


def known_paths(attributes: Mapping[str, Attribute]) -> tuple[list[Path], list[Path]]:
    """The paths of attributes and what is on the way to them; and of the latter those whose other parts no attribute
    names."""
    declared = {path_or_name(name) for name in attributes}
    above = {path[:steps] for path in declared for steps in range(1, len(path))}
    covered = {path for path in above if any(path[:steps] in declared for steps in range(1, len(path) + 1))}
    return sorted(declared | above), sorted(above - covered)


def summed_up(found: Iterable[Seen]) -> list[Unmodelled]:
    """By path, those that most devices have first."""
    by_path: dict[Path, list[Seen]] = {}
    for seen in found:
        by_path.setdefault(seen.path, []).append(seen)
    out = []
    for path, mine in by_path.items():
        mine.sort(key=lambda seen: (-seen.devices, seen.kind))
        most = mine[0]
        kinds = {seen.kind: seen.devices for seen in mine}
        out.append(Unmodelled(name_of(path), sum(kinds.values()), kinds, _type(most), most.example))
    return sorted(out, key=lambda one: (-one.devices, one.name))


def _type(seen: Seen) -> AttributeType | None:
    if seen.kind != "object":
        return _TYPES.get(seen.kind)
    if seen.example is not None:
        try:
            fitting(Attribute("geoposition"), msgspec.Raw(seen.example))
        except MisfitError:
            return "object"
        return "geoposition"
    return "object"
