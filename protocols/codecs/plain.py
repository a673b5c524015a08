"""Values of binary formats as JSON can hold them."""

from __future__ import annotations

import base64
import datetime
import math
import uuid
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from protocols.errors import DecodeError
from protocols.limits import JSON_DEPTH_MAX

_NUMBER_BITS_MAX: Final = 256
"""A whole number of more is no measurement, and costs time to write."""
_KEYS: Final = frozenset((str, int, bool, float))


def plain(value: Any, path: str = "", depth: int = 0) -> Any:
    """Bytes become base64url without padding (RFC 8949, section 6.1), times RFC 3339, what is no number null. Raises
    DecodeError, which names the path."""
    kind = type(value)
    if kind is str:
        if "\0" in value:
            raise DecodeError(f"{path or 'text'} holds the character U+0000, which no database text can", path=path)
        return value
    if kind is bool or value is None:
        return value
    if kind is int:
        if value.bit_length() > _NUMBER_BITS_MAX:
            raise DecodeError(f"{path or 'a number'} has more than {_NUMBER_BITS_MAX} bits", path=path)
        return value
    if kind is float:
        return value if math.isfinite(value) else None
    if depth > JSON_DEPTH_MAX:
        raise DecodeError(f"nested deeper than {JSON_DEPTH_MAX} levels", path=path)
    if kind is dict or isinstance(value, Mapping):
        return {
            _name(key, path): plain(item, f"{path}.{key}" if path else str(key), depth + 1)
            for key, item in value.items()
        }
    if kind is list or kind is tuple:
        return [plain(item, f"{path}[{place}]", depth + 1) for place, item in enumerate(value)]
    if kind is bytes:
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
    if kind is datetime.datetime:
        return value.isoformat().replace("+00:00", "Z")
    if kind is Decimal:
        number = float(value)
        return number if math.isfinite(number) else None
    if kind is uuid.UUID:
        return str(value)
    raise DecodeError(f"{path or 'the value'} is {kind.__name__}, which JSON has no place for", path=path)


def _name(key: Any, path: str) -> str:
    """Numbers as names are written as JSON does: 1, true, 0.5."""
    if type(key) is str:
        return str(plain(key, path))
    if type(key) not in _KEYS:
        raise DecodeError(f"a name in {path or 'the payload'} is {type(key).__name__}; text or a number is expected")
    return str(key).lower() if type(key) is bool else str(plain(key, path))
