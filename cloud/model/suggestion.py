"""Which blueprint a device that is not known yet may be of, by what its payload says. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from cloud.model.attribute import Attribute, AttributeType, MisfitError, fitting, name_of, path_or_name

ATTRIBUTES_MAX: Final = 100
"""Of a blueprint that is made from a payload: more are no attributes, but keys of a table."""

TITLE_CHARACTERS_MAX: Final = 200
_MISSING: Final = object()
_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode
_encode: Final = msgspec.json.Encoder().encode


class Suggestion(msgspec.Struct, frozen=True):
    blueprint_id: str
    fitting: int
    """How many of the payload's attributes it has, with types that fit."""
    of: int
    """How many the payload has."""


def suggested(data: bytes, blueprints: Iterable[tuple[str, Mapping[str, Attribute]]]) -> Suggestion | None:
    """`data`: a message's, JSON; `blueprints`: (id, attributes). The one that has most of the payload's attributes, of
    these the one that converts fewest, then the smallest, by id. None: each has none of them, or contradicts one."""
    held = _decode(data)
    found = []
    for blueprint_id, attributes in blueprints:
        fits = _fits(held, attributes)
        if fits is not None and fits[0]:
            found.append((-fits[0], -fits[1], len(attributes), blueprint_id))
    if not found:
        return None
    negative, _, _, blueprint_id = min(found)
    return Suggestion(blueprint_id, -negative, len(held))


def _fits(data: Mapping[str, Any], attributes: Mapping[str, Attribute]) -> tuple[int, int] | None:
    """How many of the attributes the data has, and how many of these as they are; None: one does not fit."""
    there = as_it_is = 0
    for name, attribute in attributes.items():
        value = _at(data, path_or_name(name))
        if value is _MISSING:
            continue
        raw = msgspec.Raw(_encode(value))
        try:
            as_it_is += fitting(attribute, raw) is raw
        except MisfitError:
            return None
        there += 1
    return there, as_it_is


def _at(data: Any, path: Sequence[str]) -> Any:
    for step in path:
        if not isinstance(data, Mapping) or step not in data:
            return _MISSING
        data = data[step]
    return data


def drafted(data: bytes) -> dict[str, Attribute]:
    """The attributes of a blueprint that is made from a message's data (JSON), in its order; without those that say
    nothing, arrays, for which there is no type, and those that cannot be named."""
    found = {
        name_of((name,)): Attribute(_type_of(value))
        for name, value in _decode(data).items()
        if value is not None and not isinstance(value, list) and _is_name(name)
    }
    return dict(list(found.items())[:ATTRIBUTES_MAX])


def plain_title(alias: str) -> str:
    """A name for people, from what a device calls itself."""
    plain = "".join(character for character in alias if character.isprintable())
    return plain.strip()[:TITLE_CHARACTERS_MAX] or "device"


def _type_of(value: Any) -> AttributeType:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    raw = msgspec.Raw(_encode(value))
    likely: AttributeType = "timestamp" if isinstance(value, str) and "T" in value else "geoposition"
    try:
        fitting(Attribute(likely), raw)
    except MisfitError:
        return "string" if isinstance(value, str) else "object"
    return likely


def _is_name(name: str) -> bool:
    return bool(name) and name.isprintable() and len(name.encode()) <= 128 and not name.startswith("$")
