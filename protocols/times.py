"""`event_time`: a pure function of what is in the record, so that a resend gives the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

DEVICE_TIME_MIN_MS: Final = 946_684_800_000
"""2000-01-01T00:00:00Z: before it, a device's clock was never set."""

DEVICE_TIME_AHEAD_MAX_MS: Final = 5 * 60 * 1000
"""A device may be this far ahead of the gateway; beyond it, its clock is wrong."""


def event_times(device_ms: Sequence[int | None], received_ms: Sequence[int]) -> tuple[list[int], list[int]]:
    """For each message the time that it is filed under, Unix milliseconds; and the places of those whose device's time
    was set aside as implausible. No device time at all is not among them: most devices have no clock."""
    filed = list(received_ms)
    replaced: list[int] = []
    for place, device in enumerate(device_ms):
        if device is not None:
            if DEVICE_TIME_MIN_MS <= device <= filed[place] + DEVICE_TIME_AHEAD_MAX_MS:
                filed[place] = device
            else:
                replaced.append(place)
    return filed, replaced
