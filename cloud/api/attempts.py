"""Wrong passwords, counted: whoever guesses is slowed down, whoever mistypes is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

WINDOW_S: Final = 60.0
"""Wrong passwords are counted for this long."""
PER_NAME_MAX: Final = 5
"""For one name from one address in a window. Not for a name as such: anyone could lock its owner out."""
PER_ADDRESS_MAX: Final = 30
"""From one address, whatever the names."""
WINDOWS_MAX: Final = 8192
"""Counted at the same time, about 1 MB; the oldest makes room."""


class _Window(msgspec.Struct):
    ends_s: float
    wrong: int = 0


class Attempts:
    """`monotonic_s`: a clock that never goes back."""

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self._clock = monotonic_s
        self._windows: dict[tuple[str, str | None], _Window] = {}

    def wait_s(self, address: str, name: str) -> float:
        """How long a password from there is not even looked at; 0: it is."""
        return max(self._left(address, name, PER_NAME_MAX), self._left(address, None, PER_ADDRESS_MAX))

    def count_wrong(self, address: str, name: str) -> None:
        for key in ((address, name), (address, None)):
            window = self._windows.get(key)
            if window is None or window.ends_s <= self._clock():
                self._windows.pop(key, None)  # so that the order of the dictionary is that of the windows
                if len(self._windows) >= WINDOWS_MAX:
                    del self._windows[next(iter(self._windows))]
                window = self._windows[key] = _Window(self._clock() + WINDOW_S)
            window.wrong += 1

    def _left(self, address: str, name: str | None, most: int) -> float:
        window = self._windows.get((address, name))
        if window is None or window.wrong < most:
            return 0.0
        return max(0.0, window.ends_s - self._clock())
