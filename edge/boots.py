"""Boots that nobody told the time, dated by the boots before and after them: a gateway without a battery has such while
the power flickers and the link is down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from protocols.messages import Anchor
from protocols.times import BETWEEN_BOOTS, DRIFT_PARTS, true_time

SEEN_EVERY_MS: Final = 5 * 60 * 1000
"""From one note of how long this boot has lasted to the next: what such dates are off by, and few writes for a flash
card."""


class Boot(msgspec.Struct, frozen=True, array_like=True):
    """One boot of this machine."""

    boot: int
    seen_ms: int
    """Its boot clock when it was last noted; it ran at least so long."""


def anchors_between(before: Anchor, seen_ms: int, boots: Sequence[Boot], after: Anchor) -> list[Anchor]:
    """One for each of `boots`, in their order, which lie between the boot of `before`, last noted at `seen_ms`, and
    that of `after`: in the middle of the room that there is. Empty if there is none, because somebody's time is wrong.
    """
    earliest_ms, before_error_ms = true_time(before, seen_ms)
    latest_ms, after_error_ms = true_time(after, 0)
    ran_ms = sum(boot.seen_ms for boot in boots)
    room_ms = latest_ms - earliest_ms - ran_ms
    error_ms = before_error_ms + after_error_ms + 1 + ran_ms // DRIFT_PARTS
    if room_ms < -error_ms:
        return []
    half_ms = (max(room_ms, 0) + 1) // 2
    begins_ms = earliest_ms + half_ms
    anchors = []
    for boot in boots:
        anchors.append(Anchor(boot.boot, 0, begins_ms, half_ms + error_ms, BETWEEN_BOOTS))
        begins_ms += boot.seen_ms
    return anchors
