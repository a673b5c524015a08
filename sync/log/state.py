"""What the log remembers beside its segments: which records the cloud has, and the totals of epochs that are gone.

Two files of 256 KiB, `state.0` and `state.1`, preallocated, written in turn: a crash, a full disk or a failure while
one is written leaves the other. The valid one with the higher generation counts.

    offset  size  field (little endian)
    0       4     magic "TGA1" (the digit is the version)
    4       4     length of the body
    8       8     generation, rising by 1 with each write
    16      4     CRC-32 (zlib) of bytes 0 to 15 and the body
    20      …     body: MessagePack array of the fields of State in order

Losing it costs only resending.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

import msgspec

from protocols.errors import UNREADABLE, ChecksumError, MalformedError, VersionError
from sync.log.segment import Ended
from sync.log.settings import STATE_FILE_BYTES

MAGIC: Final = b"TGA1"
_HEAD: Final = struct.Struct("<4sIQ")
_CRC: Final = struct.Struct("<I")
_HEAD_BYTES: Final = _HEAD.size + _CRC.size


class Totals(msgspec.Struct, frozen=True, array_like=True):
    """Records of epochs of which no segment is left."""

    logged: int = 0
    accepted: int = 0
    damaged: int = 0


class EpochState(msgspec.Struct, frozen=True, array_like=True):
    epoch: int
    accepted: list[tuple[int, int]]
    damaged: list[tuple[int, int]]


class State(msgspec.Struct, frozen=True, array_like=True):
    gone: Totals
    epochs: list[EpochState]
    """Oldest first."""
    ends: list[Ended]
    """Of segments that end where no later file says it any more."""


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(State)


def state_names() -> tuple[str, str]:
    return state_name(0), state_name(1)


def state_name(generation: int) -> str:
    """The file that this generation is written to."""
    return f"state.{generation % 2}"


def encode_state(state: State, generation: int) -> bytes:
    """Never longer than its file: epochs that do not fit are left out, the newest first, and will be sent again."""
    epochs = state.epochs
    while True:
        body = _encoder.encode(State(state.gone, epochs, state.ends))
        if _HEAD_BYTES + len(body) <= STATE_FILE_BYTES:
            break
        epochs = epochs[: len(epochs) * 3 // 4]
    head = _HEAD.pack(MAGIC, len(body), generation)
    return b"".join((head, _CRC.pack(zlib.crc32(body, zlib.crc32(head))), body))


def decode_state(data: bytes) -> tuple[int, State]:
    """Generation and state. Raises a WireError where there is no valid one."""
    if len(data) < _HEAD_BYTES or data[:3] != MAGIC[:3]:
        raise MalformedError("not a log's state: the magic number is missing")
    if data[:4] != MAGIC:
        raise VersionError(f"state version {data[3:4]!r}; this side reads {MAGIC[3:]!r}")
    _, length, generation = _HEAD.unpack_from(data)
    (crc,) = _CRC.unpack_from(data, _HEAD.size)
    body = data[_HEAD_BYTES : _HEAD_BYTES + length]
    if zlib.crc32(body, zlib.crc32(data[: _HEAD.size])) != crc:
        raise ChecksumError("the state's CRC-32 does not match")
    try:
        return generation, _decoder.decode(body)
    except UNREADABLE as error:
        raise MalformedError(f"state: {error}") from None
