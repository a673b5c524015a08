"""How fast may be sent: a limit for links that are paid by the byte, or shared."""

from __future__ import annotations

from typing import Final

PACE_STEP_S: Final = 1.0
"""While a frame is held back, this often it is noted that nothing hangs; and a frame of blocks is no more than may be
sent in this time."""


class Pace:
    """A token bucket that may be overdrawn by one frame: what was sent is paid for before the next one goes."""

    def __init__(self, bytes_per_s_max: int, now_s: float) -> None:
        """0: no limit."""
        self._bytes_per_s_max = bytes_per_s_max
        self._paid_s = now_s

    def sent(self, size_bytes: int, now_s: float) -> None:
        if self._bytes_per_s_max:
            self._paid_s = max(self._paid_s, now_s) + size_bytes / self._bytes_per_s_max

    def wait_s(self, now_s: float) -> float:
        """Until the next frame may go."""
        return max(0.0, self._paid_s - now_s)
