"""The gateway's clocks, as listeners stamp batches with them."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path
from typing import ClassVar, Final, Protocol

from protocols.messages import ClockState
from protocols.times import CLOCK_UNSET_BEFORE_MS

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_TIMEX_BYTES: Final = 512
"""More than any platform's `struct timex`."""
_TIME_ERROR: Final = 5


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

    def error_ms(self) -> int:
        """The wall clock is within ± so much of true time, as whoever synchronizes it says. Means something only while
        it is synchronized."""
        ...


class _Timex(ctypes.Structure):
    """The head of `struct timex`; `modes` 0 asks and sets nothing."""

    _fields_: ClassVar = [
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror_us", ctypes.c_long),
        ("rest", ctypes.c_char * _TIMEX_BYTES),
    ]


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
        """Synchronized while the kernel says that some service (NTP, PTP, a GPS) keeps its clock within bounds. A clock
        that was never set is not, whatever is said of it."""
        if self.wall_ms() < CLOCK_UNSET_BEFORE_MS:
            return ClockState.UNSET
        kept = self._adjtimex(ctypes.byref(_Timex())) not in (-1, _TIME_ERROR)
        return ClockState.SYNCHRONIZED if kept else ClockState.RESTORED

    def error_ms(self) -> int:
        timex = _Timex()
        self._adjtimex(ctypes.byref(timex))
        return 1 + int(timex.maxerror_us) // 1000


class TrueTime(Protocol):
    """What is known beside the machine's own clocks (edge/anchors.py)."""

    def is_synchronized(self) -> bool:
        """Whether the wall clock is true."""
        ...

    def true_ms(self) -> int:
        """Unix milliseconds, as true as is known."""
        ...


class GatewayClock:
    """The machine's clocks, by which batches are stamped, and two that no step of the wall clock moves."""

    def __init__(self, clock: ClockSource, known: TrueTime) -> None:
        self.boot = clock.boot
        self.wall_ms = clock.wall_ms
        self.boot_ms = clock.boot_ms
        self.error_ms = clock.error_ms
        self.true_ms = known.true_ms
        """For whatever expires, and for ages of what outlives the process."""
        self._state = clock.state
        self._is_synchronized = known.is_synchronized
        self._started_ms = clock.wall_ms() - clock.boot_ms()

    def state(self) -> ClockState:
        """Synchronized only where more than the kernel says so."""
        state = self._state()
        if state is ClockState.SYNCHRONIZED and not self._is_synchronized():
            return ClockState.RESTORED
        return state

    def steady_ms(self) -> int:
        """For durations: what the wall clock would show had nobody set it since the start of this process, right or
        wrong."""
        return self._started_ms + self.boot_ms()

    def true_of_steady_ms(self, steady_ms: int) -> int:
        """Unix milliseconds of a moment that is remembered by the steady clock, as far as true time is known by now."""
        return self.true_ms() - self.steady_ms() + steady_ms
