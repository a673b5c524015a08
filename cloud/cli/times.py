"""Times as people write them on a command line."""

from __future__ import annotations

import datetime
import re

from cloud.model.spans import SPAN_REMEDY, parse_span
from tidegate.console import UserError


def time_ms(text: str) -> int:
    """Unix milliseconds. Raises UserError."""
    if re.fullmatch(r"\d{1,16}", text):
        return int(text)
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise UserError(f"{text!r} is no time", "write it as 2026-03-01T08:30:00Z or in Unix milliseconds") from None
    if moment.tzinfo is None:
        raise UserError(f"{text!r} has no time zone", "write it as 2026-03-01T08:30:00Z")
    return round(moment.timestamp() * 1000)


def span_ms(text: str) -> int:
    """Raises UserError."""
    found = parse_span(text)
    if found is None:
        raise UserError(f"{text!r} is no span of time", SPAN_REMEDY)
    return found
