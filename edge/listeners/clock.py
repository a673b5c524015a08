"""The gateway's clocks, as listeners stamp batches with them."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path
from typing import Final, Protocol

from protocols.messages import ClockState

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_TIMEX_BYTES: Final = 512
"""More than any platform's `struct timex`, whose first field, `modes` 0, asks and sets nothing."""
_TIME_ERROR: Final = 5
_WALL_MIN_MS: Final = 1_577_836_800_000
"""2020-01-01: a wall clock before it was never set."""


class ClockSource(Protocol):
    @property
    def boot(self) -> int:
        """Random, 63 bits, one for each boot of the machine."""
        ...

    def wall_ms(self) -> int:
        """Unix milliseconds; may step."""
        ...

    def boot_ms(self) -> int:
        """Milliseconds of the boot clock, which goes on in suspend and never steps."""
        ...

    def state(self) -> ClockState: ...


class SystemClock:
    """The machine's own clocks (clock_gettime(2), adjtimex(2))."""

    def __init__(self) -> None:
        self.boot = int(_BOOT_ID.read_text().replace("-", ""), 16) & (2**63 - 1)
        self._adjtimex = ctypes.CDLL(None).adjtimex

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def boot_ms(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000

    def state(self) -> ClockState:
        """Synchronized while the kernel says that some service (NTP, PTP, a GPS) keeps its clock within bounds."""
        if self._adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES)) not in (-1, _TIME_ERROR):
            return ClockState.SYNCHRONIZED
        return ClockState.RESTORED if self.wall_ms() >= _WALL_MIN_MS else ClockState.UNSET
