"""What a codec makes of one payload, for people: the messages, or the byte and the reason."""

from __future__ import annotations

import base64
import binascii
from typing import Final

import msgspec

from protocols.codecs.base import Decoder
from protocols.ids import KeyPart

AROUND_BYTES: Final = 8
"""Shown on both sides of the byte that is wrong."""


class TriedMessage(msgspec.Struct, frozen=True):
    index: int
    data: msgspec.Raw
    """A JSON object."""
    alias: str | None
    """The device that the payload names; None: it names none."""
    key: tuple[KeyPart, ...] | None
    """The message key."""
    time: int | None
    """Unix milliseconds."""
    received_plus_ms: int | None
    """Where the payload's time counts from when it was received: so much later, negative before."""


class Around(msgspec.Struct, frozen=True):
    """The bytes around the one that is wrong."""

    start: int
    """The first of them."""
    hex: str
    """As pairs of digits, with a blank between them."""
    text: str
    """What can be printed of them; dots for the others."""


class TrialError(msgspec.Struct, frozen=True):
    code: str
    detail: str
    offset: int | None
    """The byte of the payload, from 0."""
    path: str
    """The place in what the payload holds; empty: not known."""
    around: Around | None


class Trial(msgspec.Struct, frozen=True):
    messages: list[TriedMessage]
    units: dict[str, str]
    """Attribute to unit, as codec or payload says it."""
    error: TrialError | None


def try_payload(decoder: Decoder, payload: bytes) -> Trial:
    """Never raises, as decoders never do."""
    decoded = decoder([payload])
    relative = set(decoded.relative)
    messages = [
        TriedMessage(
            decoded.index[row],
            msgspec.Raw(decoded.data[row]),
            decoded.alias[row],
            decoded.key[row],
            None if row in relative else decoded.time[row],
            decoded.time[row] if row in relative else None,
        )
        for row in range(len(decoded.data))
    ]
    if not decoded.errors:
        named = {name for message in messages for name in msgspec.json.decode(message.data)}
        return Trial(messages, {name: unit for name, unit in decoded.units.items() if name in named}, None)
    (_, error) = decoded.errors[0]
    around = None if error.offset is None else _around(payload, error.offset)
    return Trial([], {}, TrialError(error.code, error.detail, error.offset, error.path, around))


def payload_of(text: str) -> bytes:
    """A payload as people write it: `hex:01 ff`, `base64:Af8=`, else the text itself. Raises ValueError."""
    form, colon, rest = text.partition(":")
    if colon and form == "hex":
        try:
            return bytes.fromhex(rest.strip().removeprefix("0x"))
        except ValueError:
            raise ValueError("hex: takes pairs of hexadecimal digits, with or without blanks between them") from None
    if colon and form == "base64":
        try:
            return base64.b64decode("".join(rest.split()), altchars=None, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("base64: takes base64 (RFC 4648, section 4), with its padding") from None
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ValueError("the text holds half of a surrogate pair; write the bytes as hex: or base64:") from None


def _around(payload: bytes, offset: int) -> Around:
    start = max(0, offset - AROUND_BYTES)
    shown = payload[start : offset + AROUND_BYTES + 1]
    return Around(start, shown.hex(" "), "".join(chr(byte) if 32 <= byte < 127 else "." for byte in shown))
