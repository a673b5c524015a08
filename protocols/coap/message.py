"""CoAP messages as datagrams carry them, both ways (RFC 7252, section 3).

byte 0       version (2 bits, 01), type (2 bits), length of the token (4 bits, 0 to 8)
byte 1       code
bytes 2, 3   message id
…            token
…            options, each: delta (4 bits), length (4 bits), both maybe continued in bytes of their own, value
…            0xFF and the payload, where there is one
"""

from __future__ import annotations

from typing import Final

import msgspec

from protocols.coap.numbers import REPEATABLE, VALUE_BYTES, Kind, Option
from protocols.errors import MalformedError

HEAD_BYTES: Final = 4
TOKEN_BYTES_MAX: Final = 8
OPTIONS_MAX: Final = 64
"""Of one message: a path and a query of many parts; more make work and mean nothing."""

BLOCK_NUMBER_MAX: Final = (1 << 20) - 1
BLOCK_EXPONENT_MAX: Final = 6
"""Blocks of 1,024 bytes; 7 is for TCP (RFC 8323)."""

_VERSION: Final = 0x40
_MARKER: Final = 0xFF


class BadOptionError(Exception):
    """A critical option that is not known, stands twice, or has no length that it may have: 4.02."""


class Block(msgspec.Struct, frozen=True):
    """One part of a body (RFC 7959, section 2.2)."""

    number: int
    more: bool
    exponent: int
    """Size is `16 << exponent` bytes."""

    @property
    def size(self) -> int:
        return 16 << self.exponent

    @property
    def start(self) -> int:
        return self.number << (self.exponent + 4)

    def encode(self) -> bytes:
        return uint(self.number << 4 | self.more << 3 | self.exponent)


class Message(msgspec.Struct, frozen=True):
    kind: int
    code: int
    message_id: int
    token: bytes = b""
    options: tuple[tuple[int, bytes], ...] = ()
    """Number and value, as they stand in the message: numbers never fall."""
    payload: bytes = b""

    def values(self, option: Option) -> list[bytes]:
        return [value for number, value in self.options if number == option]

    def value(self, option: Option) -> bytes | None:
        for number, value in self.options:
            if number == option:
                return value
        return None

    def number(self, option: Option) -> int | None:
        """Of an option that holds one."""
        value = self.value(option)
        return None if value is None else int.from_bytes(value, "big")

    def texts(self, option: Option) -> list[str]:
        """Raises MalformedError for what is no UTF-8."""
        try:
            return [value.decode() for value in self.values(option)]
        except UnicodeDecodeError:
            raise MalformedError(f"option {option.name} is not UTF-8") from None

    def block(self, option: Option) -> Block | None:
        """Raises MalformedError for a size that there is not."""
        number = self.number(option)
        if number is None:
            return None
        if number & 7 > BLOCK_EXPONENT_MAX:
            raise MalformedError(f"option {option.name} has the reserved size 7")
        return Block(number >> 4, bool(number & 8), number & 7)

    def encode(self) -> bytes:
        """`options` are in order, and their values at most 65,804 bytes."""
        parts = [
            bytes((_VERSION | self.kind << 4 | len(self.token), self.code)),
            self.message_id.to_bytes(2, "big"),
            self.token,
        ]
        before = 0
        for number, value in self.options:
            delta, more_delta = _extended(number - before)
            length, more_length = _extended(len(value))
            parts += (bytes((delta << 4 | length,)), more_delta, more_length, value)
            before = number
        if self.payload:
            parts += (b"\xff", self.payload)
        return b"".join(parts)


def decode(data: bytes) -> Message:
    """Raises MalformedError for what is a format error (section 3)."""
    if len(data) < HEAD_BYTES:
        raise MalformedError(f"{len(data)} bytes; a message has at least {HEAD_BYTES}")
    first, code = data[0], data[1]
    if first & 0xC0 != _VERSION:
        raise MalformedError(f"version {first >> 6}; there is version 1")
    token_bytes = first & 0x0F
    at = HEAD_BYTES + token_bytes
    if token_bytes > TOKEN_BYTES_MAX or at > len(data):
        raise MalformedError(f"a token of {token_bytes} bytes in a message of {len(data)}")
    kind, message_id = first >> 4 & 3, data[2] << 8 | data[3]
    if not code and len(data) > HEAD_BYTES:
        raise MalformedError("an empty message has nothing behind its message id (section 4.1)")
    options, at = _options(data, at)
    return Message(kind, code, message_id, data[HEAD_BYTES : HEAD_BYTES + token_bytes], tuple(options), data[at:])


def peek(data: bytes) -> tuple[int, int, bytes] | None:
    """Code, message id and token of a confirmable message, as far as its first bytes say; None: it is none, and gets no
    answer. For what is answered unread."""
    if len(data) < HEAD_BYTES or data[0] & 0xF0 != _VERSION or data[0] & 0x0F > TOKEN_BYTES_MAX:
        return None
    return data[1], data[2] << 8 | data[3], data[HEAD_BYTES : HEAD_BYTES + (data[0] & 0x0F)]


def check_options(message: Message) -> None:
    """Raises BadOptionError where a critical option cannot be heeded. Elective ones of that kind are no harm: who looks
    for them finds the first, and a number out of their bytes."""
    before = -1
    for number, value in message.options:
        again, before = number == before, number
        if not number & 1:
            continue
        if number not in VALUE_BYTES:
            raise BadOptionError(f"option {number} is not known here")
        least, most = VALUE_BYTES[Option(number)]
        name = Option(number).name
        if not least <= len(value) <= most:
            raise BadOptionError(f"option {name} of {len(value)} bytes; it has {least} to {most}")
        if again and number not in REPEATABLE:
            raise BadOptionError(f"option {name} stands twice")


def empty(kind: Kind, message_id: int) -> bytes:
    """An acknowledgement or a reset without anything else."""
    return bytes((_VERSION | kind << 4, 0, message_id >> 8, message_id & 0xFF))


def uint(number: int) -> bytes:
    """In as few bytes as it needs, none for 0 (section 3.2)."""
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def _options(data: bytes, at: int) -> tuple[list[tuple[int, bytes]], int]:
    """The options from there on, and where the payload begins."""
    options: list[tuple[int, bytes]] = []
    number, end = 0, len(data)
    while at < end:
        first = data[at]
        at += 1
        if first == _MARKER:
            if at == end:
                raise MalformedError("a payload marker, and no payload behind it")
            return options, at
        delta, length = first >> 4, first & 0x0F
        if delta > 12:
            delta, at = _continued(data, at, delta)
        if length > 12:
            length, at = _continued(data, at, length)
        number += delta
        if at + length > end:
            raise MalformedError(f"option {number} of {length} bytes, of which {max(0, end - at)} are there")
        if number > 0xFFFF:
            raise MalformedError(f"option {number}; the highest is 65,535")
        if len(options) == OPTIONS_MAX:
            raise MalformedError(f"more than {OPTIONS_MAX} options")
        options.append((number, data[at : at + length]))
        at += length
    return options, at


def _continued(data: bytes, at: int, nibble: int) -> tuple[int, int]:
    """A delta or a length that does not fit into four bits, and where it ends."""
    size = nibble - 12
    if size == 3:
        raise MalformedError("an option with the reserved length 15")
    if at + size > len(data):
        raise MalformedError("an option that ends before its length")
    return int.from_bytes(data[at : at + size], "big") + (13 if size == 1 else 269), at + size


def _extended(number: int) -> tuple[int, bytes]:
    if number < 13:
        return number, b""
    if number < 269:
        return 13, bytes((number - 13,))
    return 14, (number - 269).to_bytes(2, "big")
