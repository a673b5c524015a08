"""A device's own clock: right until something sets it wrong, and running at its own speed from then on. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

PPM: Final = 1_000_000


class DeviceClock:
    """Reads Unix milliseconds. `wall_ms`: true time."""

    def __init__(self, wall_ms: Callable[[], int]) -> None:
        self._wall_ms = wall_ms
        self._offset_ms = 0
        self._drift_ppm = 0.0
        self._since_ms = 0
        self.is_right = True

    def now_ms(self) -> int:
        wall_ms = self._wall_ms()
        if self.is_right:
            return wall_ms
        return wall_ms + self._offset_ms + round((wall_ms - self._since_ms) * self._drift_ppm / PPM)

    def set_wrong(self, offset_ms: int, drift_ppm: float) -> None:
        """`offset_ms` ahead of true time now (below 0: behind), gaining `drift_ppm` microseconds each second."""
        self._offset_ms, self._drift_ppm, self._since_ms = offset_ms, drift_ppm, self._wall_ms()
        self.is_right = False

    def unset(self) -> None:
        """As without a battery: it begins at 1970-01-01 and goes on from there."""
        self.set_wrong(-self._wall_ms(), 0.0)

    def set_right(self) -> None:
        self.is_right = True
