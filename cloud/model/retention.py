"""Retention: what may be deleted, and when. Pure rules; the curator (cloud/services/curator.py) acts on them.

A rule is a number of days; none keeps for ever. What is said of an attribute counts for it, else what is said of its
device's blueprint, else what is said of the project. A message goes when the last of its attributes may.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

DAY_MS: Final = 86_400_000
DAYS_MAX: Final = 36_500
"""A century: what is to be kept for longer has no rule."""
BLUEPRINTS_MAX: Final = 1000
"""With rules of their own, in one project."""
ATTRIBUTES_MAX: Final = 100
"""With rules of their own, of one blueprint: each costs the curator a look at the blueprint's messages."""

Days: TypeAlias = Annotated[int, Meta(ge=1, le=DAYS_MAX)] | None
"""None: for ever."""
Kind: TypeAlias = tuple[str, str | None]
"""Project and blueprint of a message's device; no blueprint: the device exists no more."""


class BlueprintRetention(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    history_days: Days | UnsetType = UNSET
    """UNSET: as the project says."""
    attributes: dict[str, Days] = {}
    """By name, as it stands in the data."""


class Retention(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Of one project. History goes by event time, all else by when the cloud got it."""

    history_days: Days = None
    deleted_device_days: Days = None
    """Of devices that exist no more, beside `history_days`: the shorter of both."""
    rollup_days: Days = None
    """Of sums of days whose messages are gone, or have lost attributes. None: no longer than these."""
    event_days: Days = None
    reject_days: Days = None
    inbox_days: Days = None
    misfit_days: Days = None
    dead_letter_days: Days = None
    blueprints: dict[str, BlueprintRetention] = {}


KEPT: Final = Retention()
"""Of a project that has no rules."""


class Window(msgspec.Struct, frozen=True):
    """What goes of messages with an event time in [from_ms, until_ms)."""

    from_ms: int | None
    """None: from the first on."""
    until_ms: int
    gone: tuple[str, ...] | None
    """These attributes; None: all but `kept`, and messages that have none of them."""
    kept: tuple[str, ...]
    rule: str
    """The last rule that made it so, as it stands in the document."""

    @property
    def whole(self) -> bool:
        """Whether nothing is left of any message."""
        return self.gone is None and not self.kept


def windows(retention: Retention, blueprint_id: str | None, now_ms: int) -> list[Window]:
    """The oldest first; times in none of them are kept whole."""
    base, base_rule, named = _rules(retention, blueprint_id)
    by_days = {days: f"blueprints.{blueprint_id}.attributes.{name}" for name, days in named.items() if days is not None}
    if base is not None:
        by_days[base] = base_rule
    found: list[Window] = []
    older: int | None = None
    for days in sorted(by_days, reverse=True):
        until_ms = now_ms - days * DAY_MS
        expired = tuple(sorted(name for name, own in named.items() if own is not None and own <= days))
        kept = tuple(sorted(named.keys() - set(expired)))
        rule = f"{by_days[days]} = {days}"
        if base is not None and base <= days:
            found.append(Window(older, until_ms, None, kept, rule))
        else:
            found.append(Window(older, until_ms, expired, (), rule))
        older = until_ms
    return found


def may_drop(retentions: Mapping[str, Retention], kinds: Iterable[Kind], end_ms: int, now_ms: int) -> bool:
    """Whether nothing is to be left of messages before `end_ms` of devices of these kinds."""
    for project_id, blueprint_id in kinds:
        oldest = next(iter(windows(retentions.get(project_id, KEPT), blueprint_id, now_ms)), None)
        if oldest is None or not oldest.whole or oldest.until_ms < end_ms:
            return False
    return True


def _rules(retention: Retention, blueprint_id: str | None) -> tuple[int | None, str, Mapping[str, int | None]]:
    """(days of a message, which rule says so, days of attributes that have their own)"""
    if blueprint_id is None:
        rules = [
            (days, name)
            for name in ("history_days", "deleted_device_days")
            if (days := getattr(retention, name)) is not None
        ]
        return *min(rules, default=(None, "")), {}
    own = retention.blueprints.get(blueprint_id)
    if own is None:
        return retention.history_days, "history_days", {}
    if own.history_days is UNSET:
        return retention.history_days, "history_days", own.attributes
    return own.history_days, f"blueprints.{blueprint_id}.history_days", own.attributes
