"""Values of text formats: what a piece of text stands for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from protocols.codecs.spec import SpecError
from protocols.errors import DecodeError

TYPES: Final = ("number", "text", "boolean")
DIGITS_MAX: Final = 40
"""A number of more digits is none that was measured; it stays text."""
_INTEGER: Final = re.compile(r"[+-]?\d+")
_FLOAT: Final = re.compile(r"[+-]?(\d+\.\d*|\.\d+|\d+)([eE][+-]?\d+)?")
_BOOLEANS: Final = {
    "true": True,
    "false": False,
    "on": True,
    "off": False,
    "yes": True,
    "no": False,
    "1": True,
    "0": False,
}
_ABSENT: Final = frozenset(("", "nan", "null", "n/a"))
"""What loggers write where there is no value; the attribute is left out."""

NOTHING: Final = object()
ValueReader = Callable[[str, str], Any]
"""(attribute, text) to its value, or NOTHING; raises DecodeError."""


def value_reader(types: Mapping[str, str], decimal: str) -> ValueReader:
    """Raises SpecError."""
    for name, kind in types.items():
        if kind not in TYPES:
            raise SpecError(f"types.{name}", f"{kind!r} is none of {', '.join(TYPES)}")
    if decimal not in (".", ","):
        raise SpecError("decimal", f"{decimal!r} is neither . nor ,")

    def read(name: str, text: str) -> Any:
        text = text.strip()
        kind = types.get(name)
        if kind == "text":
            return text
        if text.lower() in _ABSENT:
            return NOTHING
        if kind == "boolean":
            found = _BOOLEANS.get(text.lower())
            if found is None:
                raise DecodeError(f"{name} is neither true nor false: {text[:40]!r}", path=name)
            return found
        number = number_of(text.replace(",", ".") if decimal == "," else text)
        if number is not None:
            return number
        if kind == "number":
            raise DecodeError(f"{name} is no number: {text[:40]!r}", path=name)
        return {"true": True, "false": False}.get(text.lower(), text)

    return read


def number_of(text: str) -> int | float | None:
    """None: it is no number. Leading zeros, as of serial numbers, make it none either."""
    if len(text) > DIGITS_MAX or not text.isascii():
        return None
    digits = text.lstrip("+-")
    if len(digits) > 1 and digits[0] == "0" and digits.isdecimal():
        return None
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        number = float(text)
        return number if abs(number) != float("inf") else None
    return None


def text_of(payload: bytes) -> str:
    """Raises DecodeError."""
    try:
        text = payload.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DecodeError("not text (UTF-8)", offset=error.start) from None
    if "\0" in text:
        raise DecodeError("text holds the character U+0000, which no database text can", offset=payload.find(0))
    return text
