"""What becomes of messages by their devices' blueprints.

What does not fit is left out of its message, with the reason; what no attribute names is kept as it is. Most messages
fit as they are, and stay byte for byte.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec

from cloud.model.attribute import (
    DEGREES,
    INTEGERS,
    TIMES,
    Attribute,
    MisfitError,
    Number,
    fitting,
    name_of,
    path_or_name,
)
from cloud.model.blueprint import read_attributes
from protocols.errors import UNREADABLE
from protocols.shipment import Misfit

MISFITS_MAX: Final = 16
"""Told of one message; how many more there were is told with them."""
TOLD_BYTES_MAX: Final = 200
"""Of a value that does not fit, as JSON: enough to recognize it."""
COMPILED_MAX: Final = 1024
"""Models held ready by a process: those of all projects that it works for at a time."""

_raw_object: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode: Final = msgspec.json.Encoder().encode


class Fitted(msgspec.Struct, frozen=True):
    """What became of a message that does not stay as it is."""

    data: bytes
    """For history, and for current."""
    current_only: bytes
    """For current alone, before what `data` has; empty: nothing."""
    misfits: tuple[Misfit, ...]


class _Node:
    """A name in the data: an attribute, parts that are attributes, or both."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.attribute: Attribute | None = None
        self.parts: dict[str, _Node] = {}


class Model:
    """The attributes of a blueprint, made ready for many messages."""

    def __init__(self, attributes: Mapping[str, Attribute]) -> None:
        self.relationships = {name: one for name, one in attributes.items() if one.type == "relationship"}
        self._root = _Node()
        for name, attribute in attributes.items():
            node = self._root
            path = path_or_name(name)
            for place, step in enumerate(path, 1):
                node = node.parts.setdefault(step, _Node(name_of(path[:place])))
            node.attribute = attribute
        self._is_as_declared = msgspec.json.Decoder(_declared(self._root)).decode

    def fit(self, data: bytes) -> Fitted | None:
        """What becomes of a message's data, a JSON object; None: it stays as it is, which is seen at the cost of
        reading it once."""
        try:
            self._is_as_declared(data)
        except UNREADABLE:
            return self._changed(data)
        return None

    def _changed(self, data: bytes) -> Fitted | None:
        try:
            values = _raw_object(data)
        except UNREADABLE:
            return None
        misfits: list[Misfit] = []
        is_changed = _fit_parts(self._root, values, misfits)
        apart: dict[str, msgspec.Raw] = {}
        for name in list(values):
            node = self._root.parts.get(name)
            if node is None:
                continue
            whole = values[name]
            kept = _for_history(node, whole)
            if kept is not whole:
                apart[name] = whole
                if kept is None:
                    del values[name]
                else:
                    values[name] = kept
        if not is_changed and not apart:
            return None
        return Fitted(_encode(values), _encode(apart) if apart else b"", _told(misfits))


def _fit_parts(node: _Node, values: dict[str, msgspec.Raw], misfits: list[Misfit]) -> bool:
    """Makes the values of a node's parts fit; whether that changed any."""
    is_changed = False
    for name in list(values):
        part = node.parts.get(name)
        if part is None:
            continue
        value = values[name]
        if part.attribute is not None:
            try:
                fits = fitting(part.attribute, value)
            except MisfitError as error:
                misfits.append(_misfit(part.name, error, value))
                del values[name]
                is_changed = True
                continue
            if fits is not value:
                values[name] = value = fits
                is_changed = True
        if part.parts:
            inner = _parts(value)
            if inner is not None and _fit_parts(part, inner, misfits):
                values[name] = msgspec.Raw(_encode(inner))
                is_changed = True
    return is_changed


def _for_history(node: _Node, value: msgspec.Raw) -> msgspec.Raw | None:
    """What history keeps of it: the same object where that is all of it; None: nothing."""
    if node.attribute is not None and not node.attribute.history:
        return None
    inner = _parts(value) if node.parts else None
    if inner is None:
        return value
    is_changed = False
    for name in list(inner):
        part = node.parts.get(name)
        kept = inner[name] if part is None else _for_history(part, inner[name])
        if kept is not inner[name]:
            is_changed = True
            if kept is None:
                del inner[name]
            else:
                inner[name] = kept
    return msgspec.Raw(_encode(inner)) if is_changed else value


def _parts(value: msgspec.Raw) -> dict[str, msgspec.Raw] | None:
    try:
        return _raw_object(value)
    except UNREADABLE:
        return None


def _misfit(name: str, error: MisfitError, value: msgspec.Raw) -> Misfit:
    told = bytes(value)[:TOLD_BYTES_MAX].decode(errors="ignore")
    return Misfit(name, error.code, f"{name}: {error}", told)


def _told(misfits: list[Misfit]) -> tuple[Misfit, ...]:
    more = len(misfits) - MISFITS_MAX
    if more <= 0:
        return tuple(misfits)
    rest = Misfit("", "more", f"and {more} more attributes of this message", "", more)
    return (*misfits[:MISFITS_MAX], rest)


_Never: TypeAlias = Literal["\0"]
"""What no data is: the message is looked at in full."""


class _Geoposition(msgspec.Struct, gc=False):
    lat: Annotated[float, msgspec.Meta(ge=-DEGREES["lat"], le=DEGREES["lat"])]
    lon: Annotated[float, msgspec.Meta(ge=-DEGREES["lon"], le=DEGREES["lon"])]
    latitude: _Never | msgspec.UnsetType = msgspec.UNSET
    longitude: _Never | msgspec.UnsetType = msgspec.UNSET
    lng: _Never | msgspec.UnsetType = msgspec.UNSET
    long: _Never | msgspec.UnsetType = msgspec.UNSET
    altitude: _Never | msgspec.UnsetType = msgspec.UNSET


def _declared(node: _Node) -> Any:
    """A type that reads what fits as it is, and nothing else; what no attribute names is passed over."""
    fields: list[tuple[str, Any, Any]] = []
    names: dict[str, str] = {}
    for place, (name, part) in enumerate(node.parts.items()):
        names[f"a{place}"] = name
        fields.append((f"a{place}", _declared_part(part) | msgspec.UnsetType, msgspec.UNSET))
    return msgspec.defstruct("Declared", fields, rename=names, gc=False)


def _declared_part(part: _Node) -> Any:
    attribute = part.attribute
    if attribute is not None and not attribute.history:
        return _Never
    if part.parts:
        return _declared(part) | None
    assert attribute is not None, "a leaf of the tree"
    return _declared_value(attribute) | None


def _declared_value(attribute: Attribute) -> Any:
    values = attribute.enumeration
    if values:
        if not all(isinstance(value, str) or _is_literal(value) for value in values):
            return _Never
        return Literal[values]
    low, high = attribute.minimum, attribute.maximum
    match attribute.type:
        case "string":
            return str
        case "number":
            return Annotated[
                float,
                msgspec.Meta(ge=None if low is None else float(low), le=None if high is None else float(high)),
            ]
        case "integer":
            return Annotated[
                int,
                msgspec.Meta(ge=INTEGERS[0] if low is None else low, le=INTEGERS[1] if high is None else high),
            ]
        case "boolean":
            return bool
        case "timestamp":
            return Annotated[int, msgspec.Meta(ge=TIMES[0], le=TIMES[1])]
        case "geoposition":
            return _Geoposition
        case "object":
            return dict[str, msgspec.Raw]
        case "relationship":
            return _Never


def _is_literal(value: Number) -> bool:
    """Types have whole numbers only."""
    return isinstance(value, int) and INTEGERS[0] <= value <= INTEGERS[1]


@functools.lru_cache(COMPILED_MAX)
def model_of(attributes: str) -> Model | None:
    """Of attributes as they are kept, JSON; None where there are none: then there is nothing to look at."""
    read = read_attributes(attributes)
    return Model(read) if read else None


def untold(current: Mapping[str, bytes], attributes: Mapping[str, Attribute]) -> dict[str, Any]:
    """The defaults of attributes that a device's current values (JSON) have nothing of."""
    defaults = {}
    for name, attribute in attributes.items():
        if attribute.default is not None and value_at(current, path_or_name(name)) is None:
            defaults[name] = attribute.default
    return defaults


def value_at(current: Mapping[str, bytes], path: Sequence[str]) -> msgspec.Raw | None:
    """What a device's current values (JSON) have at a path; None: nothing, or null."""
    value: msgspec.Raw | None = msgspec.Raw(current.get(path[0], b"null"))
    for step in path[1:]:
        value = (_parts(value) or {}).get(step) if value is not None else None
    return None if value is None or bytes(value) == b"null" else value
