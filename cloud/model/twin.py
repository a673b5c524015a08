"""A device's twin: what its attributes are to be, what they are, and what is between."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

DEPTH_MAX: Final = 16
"""Of objects in each other: settings are flatter, and each level costs stack."""


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386: objects are merged, null removes, anything else takes the place of what was. Changes neither."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def delta(desired: Mapping[str, Any], reported: Mapping[str, Any]) -> dict[str, Any]:
    """The desired attributes that are not reported as desired, each whole."""
    return {name: value for name, value in desired.items() if name not in reported or not _same(value, reported[name])}


def depth(value: Any) -> int:
    """0 for what holds nothing else."""
    deepest, level, inside = 0, 0, [value]
    while inside:
        deepest = level
        inside = [
            inner
            for one in inside
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
        level += 1
    return deepest


def _same(one: Any, other: Any) -> bool:
    """As JSON has it: 1 and 1.0 are one number, true is none."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)
