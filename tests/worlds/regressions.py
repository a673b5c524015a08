"""Seeds whose worlds broke a law once: always run. Each beside what was wrong."""

from __future__ import annotations

from typing import Final

SEEDS: Final[dict[int, str]] = {}
