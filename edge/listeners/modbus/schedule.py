"""When which unit is polled: at fixed distances from the start, whatever the polls themselves take."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class _Turn(msgspec.Struct):
    interval_s: float
    due_s: float
    asked: bool = False
    """Out of turn; its other turns stay where they are."""


class Schedule:
    def __init__(self, intervals_s: Sequence[float], now_s: float) -> None:
        """All are due at once, in their order. `now_s`: a clock that never goes back."""
        self._turns = [_Turn(interval_s, now_s) for interval_s in intervals_s]

    def next(self) -> tuple[int, float]:
        """Whose turn it is, and when: who was asked for, else who waits longest."""
        place = min(range(len(self._turns)), key=self._due_s)
        return place, self._due_s(place)

    def begin(self, place: int) -> None:
        """It is being polled; what is asked from now on is asked of the next poll."""
        self._turns[place].asked = False

    def done(self, place: int, now_s: float, *, not_before_s: float = 0.0) -> int:
        """It was polled. How many of its turns have passed meanwhile and are left out."""
        turn = self._turns[place]
        if turn.due_s > now_s:
            return 0
        missed = int((now_s - turn.due_s) / turn.interval_s)
        turn.due_s += (missed + 1) * turn.interval_s
        while turn.due_s < not_before_s:
            turn.due_s += turn.interval_s
        return missed

    def at_once(self, place: int) -> None:
        self._turns[place].asked = True

    def catch_up(self, now_s: float) -> None:
        """Nothing could be polled until now: of the turns that passed, the last one is due."""
        for turn in self._turns:
            if turn.due_s < now_s:
                turn.due_s += int((now_s - turn.due_s) / turn.interval_s) * turn.interval_s

    def _due_s(self, place: int) -> float:
        turn = self._turns[place]
        return 0.0 if turn.asked else turn.due_s
