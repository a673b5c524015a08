"""`event_time`: a pure function of what is in the record and the anchors of its boot, so that a resend gives the same.

An anchor says what one moment of a boot clock was in true time. The boot clock of a record is its received time minus
its clock's `offset_ms`, whatever the wall clock said meanwhile; so any record of an anchored boot has a true time:

    corrected = anchor.wall_ms + (boot clock of the record − anchor.boot_ms)
    error     = anchor.error_ms + DRIFT of the distance

The anchor of a record is the newest whose `boot_ms` is not after it, else the earliest; those that only reckon between
other boots count where there is no better one. Anchors begin after every record that was sent before they were made, so
another anchor changes no time that was told.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

from protocols.messages import Anchor, Clock

DEVICE_TIME_MIN_MS: Final = 946_684_800_000
"""2000-01-01T00:00:00Z: before it, a device's clock was never set."""

DEVICE_TIME_AHEAD_MAX_MS: Final = 5 * 60 * 1000
"""A device may be this far ahead of the gateway; beyond it, its clock is wrong."""

CLOCK_UNSET_BEFORE_MS: Final = 1_577_836_800_000
"""2020-01-01T00:00:00Z: a gateway's wall clock before it was never set."""

DRIFT_PARTS: Final = 10_000
"""A boot clock gains or loses at most one part in so many (100 ppm): cheap quartz stays below it at any usual
temperature."""

BETWEEN_BOOTS: Final = "boots"
"""Origin of an anchor that nobody told: the boot lay between two others. A gateway whose disk lost what it was told of
the boot may make one all the same; the cloud knows better then."""

TIME_ERROR_MAX_MS: Final = 2**31 - 1
"""An error bound is told below this, 24 days: it is an `integer` in the database. From there on there is none."""


def event_times(device_ms: Sequence[int | None], received_ms: Sequence[int]) -> tuple[list[int], list[int]]:
    """For each message the time that it is filed under, Unix milliseconds; and the places of those whose device's time
    was set aside as implausible. No device time at all is not among them: most devices have no clock.

    `received_ms`: as corrected, where the clock needed it.
    """
    filed = list(received_ms)
    replaced: list[int] = []
    for place, device in enumerate(device_ms):
        if device is not None:
            if DEVICE_TIME_MIN_MS <= device <= filed[place] + DEVICE_TIME_AHEAD_MAX_MS:
                filed[place] = device
            else:
                replaced.append(place)
    return filed, replaced


def anchor_at(anchors: Sequence[Anchor], boot_ms: int) -> Anchor:
    """What dates that moment of the boot clock. `anchors`: of its boot, at least one, by rising `boot_ms`."""
    found = anchors[max(bisect_right(anchors, boot_ms, key=_boot_ms) - 1, 0)]
    if found.origin == BETWEEN_BOOTS and len(anchors) > 1:
        told = [anchor for anchor in anchors if anchor.origin != BETWEEN_BOOTS]
        return anchor_at(told, boot_ms) if told else found
    return found


def true_time(anchor: Anchor, boot_ms: int) -> tuple[int, int]:
    """That moment of the anchor's boot clock in Unix milliseconds, and by how much it may be wrong either way, at most
    TIME_ERROR_MAX_MS, which means that nobody knows."""
    distance = boot_ms - anchor.boot_ms
    return anchor.wall_ms + distance, min(anchor.error_ms - -abs(distance) // DRIFT_PARTS, TIME_ERROR_MAX_MS)


def corrected(
    received_ms: Sequence[int], clock: Clock, anchors: Sequence[Anchor]
) -> tuple[list[int], list[int | None]]:
    """True times of what that clock stamped, and their error bounds, milliseconds; None: there is none. `anchors`: as
    for anchor_at."""
    times: list[int] = []
    errors: list[int | None] = []
    for received in received_ms:
        boot_ms = received - clock.offset_ms
        time_ms, error_ms = true_time(anchor_at(anchors, boot_ms), boot_ms)
        times.append(time_ms)
        errors.append(error_ms if error_ms < TIME_ERROR_MAX_MS else None)
    return times, errors


def _boot_ms(anchor: Anchor) -> int:
    return anchor.boot_ms
