"""Spans of time as people write them: 10m, 2h, 7d."""

from __future__ import annotations

import re
from typing import Final

SPAN_REMEDY: Final = "write a number and one of ms, s, m, h, d, w, such as 10m"
_SPAN: Final = re.compile(r"(\d{1,9})(ms|s|m|h|d|w)")
_UNIT_MS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


def parse_span(text: str) -> int | None:
    """Milliseconds; None: it is no span."""
    match = _SPAN.fullmatch(text)
    return None if match is None else int(match[1]) * _UNIT_MS[match[2]]
