"""An engine's log: its standard output and error, so that what it says before it can log, or as it crashes, is there
too."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from cloud.engines.settings import LOG_BYTES_MAX

TAIL_BYTES: Final = 4096


def rotate(path: Path, bytes_max: int = LOG_BYTES_MAX) -> None:
    """Keeps the file within about `bytes_max`, its older part as `<name>.1`. The engine goes on appending to the same
    file, and what it writes during the copy is lost: that is the price for bounding a file that others hold open."""
    try:
        if path.stat().st_size <= bytes_max:
            return
    except FileNotFoundError:
        return
    with path.open("rb") as source, path.with_name(path.name + ".1").open("wb") as older:
        source.seek(-bytes_max, 2)
        shutil.copyfileobj(source, older)
    with path.open("r+b") as file:
        file.truncate(0)


def tail(path: Path, lines_max: int = 3) -> str:
    """The last lines, for an error message; empty if there are none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_BYTES))
            text = file.read(TAIL_BYTES).decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(line.strip() for line in text.splitlines()[-lines_max:])
