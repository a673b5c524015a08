"""A wall clock that is wrong for one process, by libfaketime (Debian's `faketime`). Boot clock and durations stay true.

The machine's own clock is not touched.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

DAY_S: Final = 24 * 3600
IN_1970_S: Final = -56 * 365 * DAY_S
"""From 2026, and until 2044, a clock that is off by so much is in the seventies: one that was never set."""


class WrongClock:
    """How far a process's wall clock is off, from its start on and while it runs."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.set_off(0)

    @property
    def environment(self) -> dict[str, str]:
        (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
        return {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    def set_off(self, seconds: int) -> None:
        """Steps the clock, to so much ahead of true time."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}")
        new.replace(self._file)
