"""`event_time`: a pure function of what is in the record, so that a resend gives the same."""

from __future__ import annotations

from typing import Final

DEVICE_TIME_MIN_MS: Final = 946_684_800_000
"""2000-01-01T00:00:00Z: before it, a device's clock was never set."""

DEVICE_TIME_AHEAD_MAX_MS: Final = 5 * 60 * 1000
"""A device may be this far ahead of the gateway; beyond it, its clock is wrong."""


def event_time(device_ms: int | None, received_ms: int) -> tuple[int, bool]:
    """The time a message is filed under, Unix milliseconds, and whether the device's own was set aside as implausible.

    No device time at all is not a flag: most devices have no clock.
    """
    if device_ms is None:
        return received_ms, False
    if DEVICE_TIME_MIN_MS <= device_ms <= received_ms + DEVICE_TIME_AHEAD_MAX_MS:
        return device_ms, False
    return received_ms, True
