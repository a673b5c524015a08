"""What MQTT's control packets are made of, in both versions.

byte 1     packet type (4 bits), flags (4 bits)          section 2.1.1 (3.1.1: 2.2)
byte 2 …   remaining length, 1 to 4 bytes of 7 bits      section 2.1.4 (3.1.1: 2.2.3)
…          variable header and payload, `remaining length` bytes: the *body*
"""

from __future__ import annotations

import struct
from typing import Final

from protocols.mqtt.errors import MalformedPacketError

PROTOCOL_NAME: Final = b"MQTT"
V311: Final = 4
V5: Final = 5
"""Protocol levels, by which versions are named throughout."""
LENGTH_MAX: Final = 268_435_455
"""Four bytes of seven bits (section 1.5.5)."""

CONNECT: Final = 0x10
CONNACK: Final = 0x20
PUBLISH: Final = 0x30
PUBACK: Final = 0x40
PUBREC: Final = 0x50
PUBREL: Final = 0x62
PUBCOMP: Final = 0x70
SUBSCRIBE: Final = 0x82
SUBACK: Final = 0x90
UNSUBSCRIBE: Final = 0xA2
UNSUBACK: Final = 0xB0
PINGREQ: Final = 0xC0
PINGRESP: Final = 0xD0
DISCONNECT: Final = 0xE0
AUTH: Final = 0xF0
"""First bytes, with the flags that table 2.2 prescribes; PUBLISH has flags of its own."""

PACKET_NAMES: Final = (
    "reserved packet type 0", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP",
    "SUBSCRIBE", "SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH",
)  # fmt: skip

PINGREQ_PACKET: Final = b"\xc0\x00"
PINGRESP_PACKET: Final = b"\xd0\x00"
DISCONNECT_PACKET: Final = b"\xe0\x00"

WORD: Final = struct.Struct(">H")
DOUBLE_WORD: Final = struct.Struct(">I")


def remaining_length(data: bytes, at: int) -> tuple[int, int] | None:
    """The length that starts at `at`, and where what it measures starts; None while bytes are missing."""
    length = 0
    for place in range(4):
        if at + place >= len(data):
            return None
        byte = data[at + place]
        length |= (byte & 127) << 7 * place
        if byte < 128:
            return length, at + place + 1
    raise MalformedPacketError("remaining length is longer than 4 bytes", "section 2.2.3")


def encode_length(length: int) -> bytes:
    """A variable byte integer (section 1.5.5)."""
    if length > LENGTH_MAX:
        raise ValueError(f"a length of {length:,} bytes; MQTT allows {LENGTH_MAX:,}")
    head = bytearray()
    while length > 127:
        head.append(length & 127 | 128)
        length >>= 7
    head.append(length)
    return bytes(head)


def encode_packet(first: int, body: bytes) -> bytes:
    return bytes((first,)) + encode_length(len(body)) + body


def field(data: bytes) -> bytes:
    """Binary data (section 1.5.6)."""
    return WORD.pack(len(data)) + data


def text_field(text: str) -> bytes:
    return field(text.encode())


class Reader:
    """Takes fields off a body in order; a field that is not whole is a MalformedPacketError."""

    __slots__ = ("_at", "_body", "packet")

    def __init__(self, body: bytes, packet: str) -> None:
        self._body = body
        self.packet = packet
        self._at = 0

    def byte(self, name: str) -> int:
        return self.take(1, name)[0]

    def word(self, name: str) -> int:
        return int.from_bytes(self.take(2, name), "big")

    def double_word(self, name: str) -> int:
        return int.from_bytes(self.take(4, name), "big")

    def length(self, name: str) -> int:
        """A variable byte integer (section 1.5.5)."""
        found = remaining_length(self._body, self._at)
        if found is None:
            raise MalformedPacketError(f"{self.packet} ends within its {name}", "section 1.5.5")
        length, self._at = found
        return length

    def field(self, name: str) -> bytes:
        return self.take(self.word(f"length of {name}"), name)

    def packet_id(self) -> int:
        packet_id = self.word("packet identifier")
        if packet_id == 0:
            raise MalformedPacketError(f"{self.packet} with packet identifier 0", "MQTT-2.3.1-1")
        return packet_id

    def rest(self) -> bytes:
        at, self._at = self._at, len(self._body)
        return self._body[at:]

    def at_end(self) -> bool:
        return self._at == len(self._body)

    def finish(self, clause: str) -> None:
        if not self.at_end():
            left = len(self._body) - self._at
            raise MalformedPacketError(f"{self.packet} has {left} bytes behind its last field", clause)

    def take(self, length: int, name: str) -> bytes:
        end = self._at + length
        if end > len(self._body):
            raise MalformedPacketError(f"{self.packet} ends within its {name}", "section 2.2.3")
        at, self._at = self._at, end
        return self._body[at:end]
