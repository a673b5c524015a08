"""Times in queries: Unix milliseconds or RFC 3339; spans such as 10m."""

from __future__ import annotations

import datetime
import re
from typing import Final

from cloud.api.problems import invalid
from cloud.model.spans import SPAN_REMEDY, parse_span

FROM_MIN_MS: Final = 0
"""Received times of a gateway whose clock was never set begin here."""
TO_MAX_MS: Final = 2**53
"""Beyond all times that a message can have, and exact in every JSON reader."""

_LOST_PLUS: Final = re.compile(r" (\d\d:\d\d)$")


def time_ms(text: str, field: str) -> int:
    """Raises a problem that names the field."""
    if re.fullmatch(r"-?\d{1,16}", text):
        return max(FROM_MIN_MS, min(int(text), TO_MAX_MS))
    try:
        # A plus sign that was not encoded arrives as a space.
        moment = datetime.datetime.fromisoformat(_LOST_PLUS.sub(r"+\1", text))
    except ValueError:
        raise _no_time(field, text) from None
    if moment.tzinfo is None:
        raise invalid(field, "has no time zone", remedy="write it as 2026-03-01T08:30:00Z")
    return max(FROM_MIN_MS, round(moment.timestamp() * 1000))


def span_ms(text: str, field: str) -> int:
    """Raises a problem that names the field."""
    found = parse_span(text)
    if found is None:
        raise invalid(field, f"{text[:40]!r} is no span of time", remedy=SPAN_REMEDY)
    return found


def _no_time(field: str, text: str) -> Exception:
    remedy = "write it as 2026-03-01T08:30:00Z or in Unix milliseconds"
    return invalid(field, f"{text[:40]!r} is no time", remedy=remedy)
