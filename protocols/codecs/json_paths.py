"""JSON (RFC 8259): an object is one message, an array of objects one message each; so are objects on lines of their own
(newline-delimited)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from protocols.codecs.base import Decoded, Decoder, nothing_decoded
from protocols.codecs.reader import MessageReader
from protocols.codecs.spec import CodecSpec
from protocols.errors import UNREADABLE, DecodeError, found_at
from protocols.limits import JSON_DEPTH_MAX

_decode: Final = msgspec.json.Decoder().decode
_decode_lines: Final = msgspec.json.Decoder().decode_lines


def json_decoder(spec: CodecSpec) -> Decoder:
    """Raises SpecError."""
    reader = MessageReader(spec)

    def decode(payloads: Sequence[bytes]) -> Decoded:
        """Nearly always every payload is one flat object: then columns are made at once. Else each is looked at by
        itself, so that what is wrong with one stays with it."""
        together = b"\n".join(payloads)
        if (
            b"[" not in together
            and b"\\u0000" not in together
            and together.count(b"{") == len(payloads)
            and reader.is_plain
        ):
            try:
                return reader.flat_columns([_decode(payload) for payload in payloads])
            except (DecodeError, *UNREADABLE):
                pass
        out = nothing_decoded()
        for place, payload in enumerate(payloads):
            try:
                reader.add_value(out, place, payload, parse_checked(payload))
            except DecodeError as error:
                out.errors.append((place, error))
        return out

    return decode


def parse_checked(payload: bytes) -> Any:
    """What a payload holds that may be any JSON; an array for lines of it. Raises DecodeError."""
    zero = payload.find(b"\\u0000")
    if zero >= 0:
        raise DecodeError("JSON holds the character U+0000, which no database text can", offset=zero)
    value = _parse(payload)
    _check_depth(value, 0)
    return value


def _parse(payload: bytes) -> Any:
    try:
        return _decode(payload)
    except RecursionError:
        raise DecodeError(f"JSON nested deeper than {JSON_DEPTH_MAX} levels") from None
    except UNREADABLE as error:
        if b"}\n" in payload or b"}\r\n" in payload:
            try:
                return _decode_lines(payload)
            except UNREADABLE:
                pass
        said = DecodeError(f"not JSON: {error}")
        said.offset = found_at(said.detail)
        raise said from None


def _check_depth(value: Any, depth: int) -> None:
    if depth > JSON_DEPTH_MAX:
        raise DecodeError(f"JSON nested deeper than {JSON_DEPTH_MAX} levels")
    for child in value.values() if type(value) is dict else value if type(value) is list else ():
        if type(child) is dict or type(child) is list:
            _check_depth(child, depth + 1)
