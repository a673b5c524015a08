"""How often one thing may be said: what a hostile or broken device causes is logged, but never floods the log."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final

REPEATS_MAX: Final = 20
"""Lines of one kind in a window: enough to see which devices it is about."""
WINDOW_S: Final = 10.0
KINDS_MAX: Final = 1_000
"""Kinds that are told apart: events are constant texts, so there are a few dozen; a library that puts its facts into
the text would make any number."""

_LAST: Final = {"repeats": f"passed over for {WINDOW_S:.0f} s"}


class Repeats:
    """Counts lines of each kind; the first ones of each window may pass."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ends = clock() + WINDOW_S
        self._seen: dict[Hashable, int] = {}
        self._passed_over: dict[Hashable, int] = {}

    def admit(self, kind: Hashable) -> Mapping[str, Any] | None:
        """None if a line of this kind is to be passed over now, else the facts to add to it: that it is the last for a
        while, and how many there were since the one before."""
        if self._clock() >= self._ends or (kind not in self._seen and len(self._seen) >= KINDS_MAX):
            self._next_window()
        seen = self._seen[kind] = self._seen.get(kind, 0) + 1
        if seen > REPEATS_MAX:
            return None
        passed_over = self._passed_over.pop(kind, 0)
        return ({"passed_over": passed_over} if passed_over else {}) | (_LAST if seen == REPEATS_MAX else {})

    def _next_window(self) -> None:
        self._ends = self._clock() + WINDOW_S
        if len(self._passed_over) >= KINDS_MAX:
            self._passed_over.clear()
        for kind, seen in self._seen.items():
            if seen > REPEATS_MAX:
                self._passed_over[kind] = self._passed_over.get(kind, 0) + seen - REPEATS_MAX
        self._seen.clear()
