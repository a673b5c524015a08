"""A change of a blueprint: what it is, and what it does to the values that there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from cloud.model.attribute import Attribute, MisfitError, fitting, path_or_name
from cloud.model.fitting import value_at

EXAMPLES_MAX: Final = 5
"""Of an attribute, of each kind: enough to see what is meant."""
EXAMPLE_BYTES_MAX: Final = 200
"""Of a value, as JSON, that is shown whole."""
_OF_VALUES: Final = ("type", "minimum", "maximum", "enumeration")
"""Fields that decide which value fits."""

Change = tuple[Any, Any]
"""Before and after."""


class Diff(msgspec.Struct, frozen=True):
    """Between two versions. `fields`: of the blueprint itself."""

    fields: dict[str, Change]
    added: dict[str, Attribute]
    removed: dict[str, Attribute]
    changed: dict[str, dict[str, Change]]
    """By attribute, then by field."""


class Example(msgspec.Struct, frozen=True):
    device: int
    value: str
    """JSON, or the beginning of it."""
    becomes: str | None
    """JSON, or the beginning of it, if it were sent again; None: it would not fit."""
    reason: str | None


class Effect(msgspec.Struct):
    """On the current values of one attribute, were they sent again."""

    attribute: str
    change: str
    """`added`, `removed`, `changed`."""
    values: int = 0
    """That there are."""
    fit: int = 0
    convert: int = 0
    misfit: int = 0
    examples: list[Example] = []


def diff(
    before: Mapping[str, Attribute], after: Mapping[str, Attribute], fields: Mapping[str, Change] | None = None
) -> Diff:
    """`fields`: of the blueprint itself, those that are the same as well."""
    changed = {}
    for name in before.keys() & after.keys():
        old, new = before[name], after[name]
        if old != new:
            changed[name] = {
                field: (getattr(old, field), getattr(new, field))
                for field in Attribute.__struct_fields__
                if getattr(old, field) != getattr(new, field)
            }
    return Diff(
        {name: change for name, change in (fields or {}).items() if change[0] != change[1]},
        {name: after[name] for name in sorted(after.keys() - before.keys())},
        {name: before[name] for name in sorted(before.keys() - after.keys())},
        dict(sorted(changed.items())),
    )


class Effects:
    """Of a change on current values, device by device."""

    def __init__(self, found: Diff, after: Mapping[str, Attribute]) -> None:
        self._after = after
        kinds = dict.fromkeys(found.removed, "removed") | dict.fromkeys(found.added, "added")
        kinds |= {name: "changed" for name, fields in found.changed.items() if fields.keys() & set(_OF_VALUES)}
        self.of = {name: Effect(name, kind) for name, kind in sorted(kinds.items())}
        self._paths = {name: path_or_name(name) for name in self.of}
        self.names = sorted({path[0] for path in self._paths.values()})
        """The first steps of all paths, which is what current values are kept by."""

    def add(self, device: int, values: Mapping[str, bytes]) -> None:
        """A device's current values, JSON; those of `names` at least."""
        for name, effect in self.of.items():
            value = value_at(values, self._paths[name])
            if value is None:
                continue
            effect.values += 1
            if effect.change != "removed":
                self._look(effect, device, value)

    def _look(self, effect: Effect, device: int, value: msgspec.Raw) -> None:
        try:
            fits = fitting(self._after[effect.attribute], value)
        except MisfitError as error:
            effect.misfit += 1
            example = Example(device, _shown(value), None, str(error))
            place = effect.misfit
        else:
            if fits is value:
                effect.fit += 1
                return
            effect.convert += 1
            example = Example(device, _shown(value), _shown(fits), None)
            place = effect.convert
        if place <= EXAMPLES_MAX:
            effect.examples.append(example)


def _shown(value: msgspec.Raw) -> str:
    return bytes(value)[:EXAMPLE_BYTES_MAX].decode(errors="ignore")
