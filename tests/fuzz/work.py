"""Bounds that do not depend on how busy the machine is: lines of Python, and the time of this process's own work."""

from __future__ import annotations

import contextlib
import gc
import signal
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final, NamedTuple

CPU_S_MAX: Final = 10.0
"""Of one case: some thousand times what most take; a loop without an end comes to it."""

PEAK_BYTES_FREE: Final = 4 * 1024 * 1024
"""Bytes that a case may allocate whatever its size."""

STEPS_FREE: Final = 5_000
"""Lines that a case may take whatever its size."""


class TooMuchWorkError(BaseException):
    """Not an Exception: no code under test may take it for one of its own."""


@contextlib.contextmanager
def cpu_limit(seconds: float = CPU_S_MAX) -> Iterator[None]:
    """Raises TooMuchWorkError after so much work of this process; time in which others work does not count. For the
    main thread."""

    def late(_signal: int, _frame: FrameType | None) -> None:
        raise TooMuchWorkError(f"more than {seconds:g} s of work")

    before = signal.signal(signal.SIGVTALRM, late)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@contextlib.contextmanager
def steps_limit(steps_max: int) -> Iterator[None]:
    """Raises TooMuchWorkError after so many lines of Python: what takes twice the work for each byte more comes to it
    in no time."""
    left = steps_max

    def line(_frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal left
        if event == "line":
            left -= 1
            if left < 0:
                raise TooMuchWorkError(f"more than {steps_max:,} lines of Python")
        return line

    before = sys.gettrace()
    sys.settrace(line)
    try:
        yield
    finally:
        sys.settrace(before)


class Memory(NamedTuple):
    """Bytes that Python's objects took."""

    kept: int
    """Still allocated when the work is done."""
    peak: int
    """Allocated at most, at one time."""


def memory_of(work: Callable[[], object]) -> Memory:
    gc.freeze()  # what was there before is not looked through
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        work()
        _, peak = tracemalloc.get_traced_memory()
        gc.collect()
        return Memory(tracemalloc.get_traced_memory()[0] - before, peak - before)
    finally:
        tracemalloc.stop()
        gc.unfreeze()
