"""CSV (RFC 4180): text stands as it is, everything else as JSON has it; null is empty."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any, Final

import msgspec

CSV: Final = "text/csv"
_encode: Final = msgspec.json.Encoder().encode


def csv_lines(rows: Iterable[Iterable[Any]]) -> bytes:
    """`msgspec.Raw` among the values is JSON."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue().encode()


def _cell(value: Any) -> str:
    if isinstance(value, msgspec.Raw):
        value = bytes(value)
        return str(msgspec.json.decode(value)) if value.startswith(b'"') else value.decode()
    if isinstance(value, str):
        return value
    return "" if value is None else _encode(value).decode()
