"""Lines that are drawn in place: one that wraps is drawn again below itself, so it has to fit."""

from __future__ import annotations

import shutil
import sys
from typing import Final

UNBOUNDED: Final = sys.maxsize
"""Of a pipe: its reader takes lines of any length."""


def line_width() -> int:
    """Columns that a line on standard output may take now; a terminal's change as its window does."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else UNBOUNDED


def fitting(width: int, *forms: str) -> str:
    """The first of the forms that fits, which go from the full one to the shortest; else the start of the last."""
    for form in forms:
        if len(form) <= width:
            return form
    return forms[-1][: max(width - 1, 0)] + "…"
