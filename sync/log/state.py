"""What the log remembers beside its segments: what became of its records, which losses the cloud is to be told of, and
the totals of epochs that are gone.

Two files of 256 KiB, `state.0` and `state.1`, preallocated, written in turn: a crash, a full disk or a failure while
one is written leaves the other. The valid one with the higher generation counts.

    offset  size  field (little endian)
    0       4     magic "TGA2" (the digit is the version)
    4       4     length of the body
    8       8     generation, rising by 1 with each write
    16      4     CRC-32 (zlib) of bytes 0 to 15 and the body
    20      …     body: MessagePack array of the fields of State in order

Ranges stand in it as steps: how far each lies behind the end of the one before, and its length, by turns.

Losing it costs resending what was accepted, and what was evicted shows as damaged.

Version 1, which is still read, had no evicted records, gaps, tails and active segment, and ranges as pairs.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Final

import msgspec

from protocols.errors import UNREADABLE, ChecksumError, MalformedError, VersionError
from sync.log.epoch import Folded
from sync.log.gaps import GapState
from sync.log.segment import Ended
from sync.log.settings import STATE_FILE_BYTES
from sync.ranges import Ranges

MAGIC: Final = b"TGA2"
_MAGIC_1: Final = b"TGA1"
_HEAD: Final = struct.Struct("<4sIQ")
_CRC: Final = struct.Struct("<I")
_HEAD_BYTES: Final = _HEAD.size + _CRC.size


class Totals(msgspec.Struct, frozen=True, array_like=True):
    """Records of epochs of which no segment is left."""

    logged: int = 0
    accepted: int = 0
    damaged: int = 0
    evicted: int = 0


class EpochState(msgspec.Struct, frozen=True, array_like=True):
    """Ranges as steps."""

    epoch: int
    folded: Folded
    accepted: list[int]
    evicted: list[int]
    damaged: list[int]

    @property
    def end_seq(self) -> int:
        """Behind the last record that it tells of."""
        parts = (self.accepted, self.evicted, self.damaged)
        return max(self.folded.seq, *(sum(steps) for steps in parts))


class State(msgspec.Struct, frozen=True, array_like=True):
    gone: Totals
    epochs: list[EpochState]
    """Oldest first."""
    ends: list[Ended]
    """Of segments that end where no later file says it any more."""
    active: Ended | None = None
    """How far the segment being written was synced."""
    gaps: list[GapState] = []
    tails: int = 0
    """Since the log was made."""


class _EpochState1(msgspec.Struct, frozen=True, array_like=True):
    epoch: int
    accepted: list[tuple[int, int]]
    damaged: list[tuple[int, int]]


class _State1(msgspec.Struct, frozen=True, array_like=True):
    gone: Totals
    epochs: list[_EpochState1]
    ends: list[Ended]


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(State)
_decoder_1: Final = msgspec.msgpack.Decoder(_State1)


def state_names() -> tuple[str, str]:
    return state_name(0), state_name(1)


def state_name(generation: int) -> str:
    """The file that this generation is written to."""
    return f"state.{generation % 2}"


def encode_state(state: State, generation: int) -> bytes:
    """Never longer than its file. If it were, accepted ranges are left out, those of the newest epochs first: they will
    be sent again. If that is not enough, so are whole epochs: what they had lost will be found missing again."""
    for epochs in _shorter(state.epochs):
        body = _encoder.encode(State(state.gone, epochs, state.ends, state.active, state.gaps, state.tails))
        if _HEAD_BYTES + len(body) <= STATE_FILE_BYTES:
            break
    head = _HEAD.pack(MAGIC, len(body), generation)
    return b"".join((head, _CRC.pack(zlib.crc32(body, zlib.crc32(head))), body))


def _shorter(epochs: list[EpochState]) -> Iterator[list[EpochState]]:
    """The epochs with ever less of them."""
    yield epochs
    stripped: list[EpochState] = []
    whole = len(epochs)
    while whole:
        whole = whole * 3 // 4
        stripped = [EpochState(one.epoch, one.folded, [], one.evicted, one.damaged) for one in epochs[whole:]]
        yield epochs[:whole] + [one for one in stripped if one.end_seq]
    while stripped:
        stripped = [one for one in stripped if one.end_seq][: len(stripped) * 3 // 4]
        yield stripped


def decode_state(data: bytes) -> tuple[int, State]:
    """Generation and state. Raises a WireError where there is no valid one."""
    if len(data) < _HEAD_BYTES or data[:3] != MAGIC[:3]:
        raise MalformedError("not a log's state: the magic number is missing")
    if data[:4] not in (MAGIC, _MAGIC_1):
        raise VersionError(f"state version {data[3:4]!r}; this side reads {MAGIC[3:]!r}")
    _, length, generation = _HEAD.unpack_from(data)
    (crc,) = _CRC.unpack_from(data, _HEAD.size)
    body = data[_HEAD_BYTES : _HEAD_BYTES + length]
    if zlib.crc32(body, zlib.crc32(data[: _HEAD.size])) != crc:
        raise ChecksumError("the state's CRC-32 does not match")
    try:
        return generation, _decoder.decode(body) if data[:4] == MAGIC else _upgrade(_decoder_1.decode(body))
    except UNREADABLE as error:
        raise MalformedError(f"state: {error}") from None


def _upgrade(state: _State1) -> State:
    epochs = [
        EpochState(one.epoch, Folded(), Ranges(one.accepted).steps(), [], Ranges(one.damaged).steps())
        for one in state.epochs
    ]
    return State(state.gone, epochs, state.ends)
