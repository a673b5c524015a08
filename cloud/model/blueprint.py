"""Blueprints: what attributes may be declared as."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from cloud.model.attribute import (
    INTEGERS,
    WITH_UNIT,
    Attribute,
    MisfitError,
    fitting,
    is_finite,
    path_of,
    quoted,
)
from cloud.model.buckets import AskedError
from cloud.model.series import Path

ENUMERATION_MAX: Final = 256
"""Values of one enumeration: more are a catalogue, which has a place of its own."""
TEXT_CHARACTERS_MAX: Final = 400
"""Of a text in an enumeration."""
DEFAULT_BYTES_MAX: Final = 4096
"""Of a default, as JSON."""
FORWARDED_MAX: Final = 64
"""Attributes that one relationship forwards: each is written with each message of a child."""

_ENUMERATED: Final = ("number", "integer", "string")
read_attributes: Final = msgspec.json.Decoder(dict[str, Attribute]).decode
_any: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode


class DeclarationError(Exception):
    """An attribute that is declared so makes no sense."""

    def __init__(self, attribute: str, field: str, detail: str, limit: int | None = None) -> None:
        super().__init__(detail)
        self.attribute = attribute
        self.field = field
        """Of the attribute; empty: its name."""
        self.detail = detail
        self.limit = limit


def checked(attributes: Mapping[str, Attribute]) -> dict[str, Attribute]:
    """The same, defaults as they are kept. Raises DeclarationError."""
    return _checked_tree({name: _checked(name, attribute) for name, attribute in attributes.items()})


def _checked(name: str, attribute: Attribute) -> Attribute:
    def wrong(field: str, detail: str, limit: int | None = None) -> DeclarationError:
        return DeclarationError(name, field, detail, limit)

    kind = attribute.type
    _check_relationship(name, attribute)
    if attribute.unit is not None and kind not in WITH_UNIT:
        raise wrong("unit", f"a {kind} has no unit")
    for field, bound in (("minimum", attribute.minimum), ("maximum", attribute.maximum)):
        if bound is None:
            continue
        if kind not in WITH_UNIT:
            raise wrong(field, f"a {kind} has no {field}")
        if not is_finite(bound):
            raise wrong(field, "is not finite")
        if kind == "integer" and not (isinstance(bound, int) and INTEGERS[0] <= bound <= INTEGERS[1]):
            raise wrong(field, f"{bound} is no integer of 64 bits")
    if attribute.minimum is not None and attribute.maximum is not None and attribute.minimum > attribute.maximum:
        raise wrong("minimum", f"{attribute.minimum} is above the maximum {attribute.maximum}")
    if attribute.enumeration:
        _check_enumeration(name, attribute)
    if attribute.default is None:
        return attribute
    written = _encode(attribute.default)
    if len(written) > DEFAULT_BYTES_MAX:
        raise wrong("default", "is too large", DEFAULT_BYTES_MAX)
    if b"\\u0000" in written:
        raise wrong("default", "holds the character U+0000, which no data has")
    try:
        return msgspec.structs.replace(attribute, default=_any(fitting(attribute, msgspec.Raw(written))))
    except MisfitError as error:
        raise wrong("default", str(error)) from None


def _check_relationship(name: str, attribute: Attribute) -> None:
    if attribute.type != "relationship":
        for field in ("blueprint", "cardinality", "forward"):
            if getattr(attribute, field):
                raise DeclarationError(name, field, f"a {attribute.type} has no {field}")
        return
    for field in ("blueprint", "cardinality"):
        if getattr(attribute, field) is None:
            raise DeclarationError(name, field, "is missing")
    if len(_path(name)) > 1:
        raise DeclarationError(name, "", "a relationship is no part of an object")
    if attribute.default is not None:
        raise DeclarationError(name, "default", "a relationship has no default")
    if len(attribute.forward) > FORWARDED_MAX:
        raise DeclarationError(name, "forward", f"has {len(attribute.forward)} attributes", FORWARDED_MAX)
    places = list(attribute.forward.values())
    for place in (*attribute.forward, *places):
        try:
            path = path_of(place)
        except AskedError as error:
            raise DeclarationError(name, "forward", error.detail, error.limit) from None
        if len(path) > 1 and place in places:
            raise DeclarationError(name, "forward", f"{place}: a parent takes it under one name, not as a part")
    for place in places:
        if places.count(place) > 1:
            raise DeclarationError(name, "forward", f"{place} would be several attributes of the child")


def _check_enumeration(name: str, attribute: Attribute) -> None:
    kind, values = attribute.type, attribute.enumeration
    if kind not in _ENUMERATED:
        raise DeclarationError(name, "enumeration", f"a {kind} has no enumeration")
    if len(values) > ENUMERATION_MAX:
        raise DeclarationError(name, "enumeration", f"has {len(values)} values", ENUMERATION_MAX)
    if len(set(values)) < len(values):
        raise DeclarationError(name, "enumeration", "has a value twice")
    bounds = msgspec.structs.replace(attribute, enumeration=())
    for value in values:
        if isinstance(value, str) != (kind == "string"):
            raise DeclarationError(name, "enumeration", f"{quoted(value)} is no {kind}")
        if isinstance(value, str) and (len(value) > TEXT_CHARACTERS_MAX or not value.isprintable()):
            detail = f"{quoted(value)} is too long, or has a character that cannot be printed"
            raise DeclarationError(name, "enumeration", detail, TEXT_CHARACTERS_MAX)
        try:
            fitting(bounds, msgspec.Raw(_encode(value)))
        except MisfitError as error:
            raise DeclarationError(name, "enumeration", str(error)) from None


def _checked_tree(attributes: dict[str, Attribute]) -> dict[str, Attribute]:
    """Names are paths, each its own, and only objects have parts."""
    by_path: dict[Path, str] = {}
    for name in attributes:
        path = _path(name)
        if path in by_path:
            raise DeclarationError(name, "", f"names the same as {by_path[path]!r}")
        by_path[path] = name
    for path, name in by_path.items():
        for above in range(1, len(path)):
            holder = by_path.get(path[:above])
            if holder is None:
                continue
            if attributes[holder].type != "object":
                raise DeclarationError(name, "", f"{holder} is a {attributes[holder].type}, which has no parts")
            if not attributes[holder].history and attributes[name].history:
                raise DeclarationError(name, "history", f"{holder} is not kept in history, and this is a part of it")
    return attributes


def _path(name: str) -> Path:
    try:
        return path_of(name)
    except AskedError as error:
        raise DeclarationError(name, "", error.detail, error.limit) from None
