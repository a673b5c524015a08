"""The CoAP messages that a device of ours sends and receives (RFC 7252, and RFC 7641 for commands). Pure.

Written apart from the server's side on purpose: two readings of one standard find each other's mistakes.

    byte 0      version 1 (2 bits) | type (2 bits) | length of the token (4 bits)
    byte 1      code: class (3 bits) and detail (5 bits)
    bytes 2, 3  message id
    token | options: delta and length (4 bits each, 13 and 14 continued behind), value | 0xFF | payload
"""

from __future__ import annotations

from typing import Final

import msgspec

from firmware_sim.devices.packets import ProtocolError

CON: Final = 0
NON: Final = 1
ACK: Final = 2
RST: Final = 3

GET: Final = 0x01
POST: Final = 0x02
CREATED: Final = 0x41
CHANGED: Final = 0x44
CONTENT: Final = 0x45

OBSERVE: Final = 6
URI_PATH: Final = 11
CONTENT_FORMAT: Final = 12
URI_QUERY: Final = 15
JSON: Final = b"\x32"
"""Content-Format 50."""

ACK_TIMEOUT_S: Final = 2.0
ACK_RANDOM_FACTOR: Final = 1.5
MAX_RETRANSMIT: Final = 4
"""Section 4.8."""

_VERSION: Final = 1
_MARKER: Final = 0xFF


class Packet(msgspec.Struct, frozen=True):
    kind: int
    code: int
    message_id: int
    token: bytes
    options: tuple[tuple[int, bytes], ...] = ()
    payload: bytes = b""

    @property
    def says(self) -> str:
        """Code, and what stands with it for people."""
        text = f"{self.code >> 5}.{self.code & 31:02d}"
        return f"{text} {self.payload.decode(errors='replace')[:200]}" if self.payload else text


def encode(packet: Packet) -> bytes:
    """Options in the order of their numbers."""
    out = bytearray((_VERSION << 6 | packet.kind << 4 | len(packet.token), packet.code))
    out += packet.message_id.to_bytes(2, "big") + packet.token
    last = 0
    for number, value in packet.options:
        delta, more_delta = _nibble(number - last)
        length, more_length = _nibble(len(value))
        out.append(delta << 4 | length)
        out += more_delta + more_length + value
        last = number
    if packet.payload:
        out.append(_MARKER)
        out += packet.payload
    return bytes(out)


def decode(data: bytes) -> Packet:
    """Raises ProtocolError."""
    if len(data) < 4 or data[0] >> 6 != _VERSION:
        raise ProtocolError("no CoAP")
    kind, token_length = data[0] >> 4 & 3, data[0] & 15
    at = 4 + token_length
    if token_length > 8 or len(data) < at:
        raise ProtocolError("a token that is too long")
    options: list[tuple[int, bytes]] = []
    number = 0
    while at < len(data) and data[at] != _MARKER:
        delta, length = data[at] >> 4, data[at] & 15
        delta, at = _extended(data, delta, at + 1)
        length, at = _extended(data, length, at)
        if at + length > len(data):
            raise ProtocolError("an option that is cut off")
        number += delta
        options.append((number, data[at : at + length]))
        at += length
    token, message_id = data[4 : 4 + token_length], data[2] << 8 | data[3]
    return Packet(kind, data[1], message_id, token, tuple(options), data[at + 1 :])


def _nibble(value: int) -> tuple[int, bytes]:
    if value < 13:
        return value, b""
    if value < 269:
        return 13, (value - 13).to_bytes(1, "big")
    return 14, (value - 269).to_bytes(2, "big")


def _extended(data: bytes, nibble: int, at: int) -> tuple[int, int]:
    """The value, and where what follows begins."""
    size, base = {13: (1, 13), 14: (2, 269)}.get(nibble, (0, nibble))
    if nibble == 15 or at + size > len(data):
        raise ProtocolError("an option that is malformed")
    return base + int.from_bytes(data[at : at + size], "big"), at + size
