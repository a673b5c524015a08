"""*Complete until*: the time up to which all that a gateway received is in the databases, or a gap.

A gateway says up to when it has nothing left to send. That is true here once what the receiver had at that moment is
written: the transponder's ranges cover it. Both go on meanwhile, so one moment is followed to its end before the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sync.ranges import Ranges

CLOCK_OFF_MAX_MS: Final = 5000
"""A gateway's clock that differs from ours by more, network and all, is not one to go by."""


def told_until(at_ms: int, complete_ms: int, now_ms: int) -> int | None:
    """What a gateway's standing says, by our clock. `at_ms`, `complete_ms`: its clock's time then, and the time before
    which it has sent all; `now_ms`: ours when it came. None: its clock has stepped since, nothing can be said."""
    if complete_ms > at_ms:
        return None
    if abs(now_ms - at_ms) <= CLOCK_OFF_MAX_MS:
        return min(complete_ms, now_ms)
    return now_ms - (at_ms - complete_ms) - CLOCK_OFF_MAX_MS


class Completion:
    """Of one gateway."""

    def __init__(self) -> None:
        self._until_ms: int | None = None
        self._waiting: Mapping[int, Ranges] = {}

    @property
    def waits(self) -> bool:
        """Whether it follows a moment whose records are not all written."""
        return self._until_ms is not None

    def advance(self, told_ms: int | None, unwritten: Mapping[int, Ranges]) -> int | None:
        """What is complete now, if that is news. `told_ms`: what the gateway has said last, None: nothing new;
        `unwritten`: by epoch, what the receiver has and the transponder has not, read after it was said."""
        complete = None
        if self._until_ms is not None and not any(map(self._holds, unwritten.items())):
            complete, self._until_ms = self._until_ms, None
        if self._until_ms is None and told_ms is not None:
            if unwritten:
                self._until_ms, self._waiting = told_ms, unwritten
            else:
                complete = told_ms
        return complete

    def _holds(self, unwritten: tuple[int, Ranges]) -> bool:
        epoch, ranges = unwritten
        waiting = self._waiting.get(epoch)
        return waiting is not None and any(waiting.held(start, end) for start, end in ranges)
