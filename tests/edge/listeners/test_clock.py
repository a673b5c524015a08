from __future__ import annotations

import time

from edge.listeners.clock import SystemClock
from protocols.messages import ClockState


def test_the_clocks_are_the_machines() -> None:
    clock = SystemClock()
    assert abs(clock.wall_ms() - time.time() * 1000) < 1000
    assert abs(clock.boot_ms() - time.clock_gettime(time.CLOCK_BOOTTIME) * 1000) < 1000
    assert clock.state() in (ClockState.RESTORED, ClockState.SYNCHRONIZED)


def test_the_boot_is_the_same_for_all_processes_and_fits_63_bits() -> None:
    assert SystemClock().boot == SystemClock().boot
    assert 0 < SystemClock().boot < 2**63
