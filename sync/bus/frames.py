"""The frames of the edge bus: what a publisher or reader (client) and the hub say to each other over ZeroMQ.

A ZeroMQ message has one part, or two where a batch goes with it:

    part 0: 1 byte version = 1, then a MessagePack array: the frame's name, then the fields of its class in order
    part 1: the batch (`publish`, `deliver` only)

Fields at the end of an array that the other side does not know are passed over, so that a version can grow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, TypeVar

import msgspec

from protocols.batch import BatchKey
from protocols.errors import UNREADABLE, LimitError, MalformedError, VersionError
from protocols.limits import NAME_BYTES_MAX
from protocols.messages import Lane

VERSION: Final = 1

BATCH_BYTES_MAX: Final = 4 * 1024 * 1024
"""Part 1. A batch of records is at most a quarter of it; resolved messages carry names and ids besides."""

HEAD_BYTES_MAX: Final = 64 * 1024
"""Part 0. The longest is an `ack` of TAGS_MAX tags, 9 bytes each."""

TAGS_MAX: Final = 4096
"""Tags of one `ack`: more than any window holds, and few enough to be read without a pause."""


Name = Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_BYTES_MAX)]
"""Of a topic or a channel."""


class Hello(msgspec.Struct, array_like=True, frozen=True, tag="hello"):
    """Client: I am here. First on a connection, then every `heartbeat_ms`; answered by `welcome`."""

    grant: bytes = b""
    """The hub's own secret, which makes a client part of the gateway; empty for others."""


class Publish(msgspec.Struct, array_like=True, frozen=True, tag="publish"):
    """Client, with a batch: keep this. Answered by `accepted`, `failed` or `refused` under the same ticket."""

    ticket: int
    """The client's own number for this publish."""
    topic: Name
    lane: Lane
    key: BatchKey | None
    deadline_ms: Annotated[int, msgspec.Meta(ge=0)]
    """From now; after it the hub answers `failed`."""


class Subscribe(msgspec.Struct, array_like=True, frozen=True, tag="subscribe"):
    """Client: read a channel. Answered by `subscribed` or `unsubscribed`, then `deliver` within the window."""

    reader: int
    """The client's own number for this reader."""
    topic: Name
    channel: Name
    ephemeral: bool
    batches_max: Annotated[int, msgspec.Meta(ge=1)]
    """The window: this many batches, and this many bytes of them, may be delivered and not answered."""
    bytes_max: Annotated[int, msgspec.Meta(ge=1)]


class Ack(msgspec.Struct, array_like=True, frozen=True, tag="ack"):
    """Client: dealt with."""

    reader: int
    tags: Annotated[list[int], msgspec.Meta(max_length=TAGS_MAX)]


class Nak(msgspec.Struct, array_like=True, frozen=True, tag="nak"):
    """Client: deliver it again, not sooner than in `delay_ms`."""

    reader: int
    tag: int
    delay_ms: Annotated[int, msgspec.Meta(ge=0)] = 0


class Refuse(msgspec.Struct, array_like=True, frozen=True, tag="refuse"):
    """Client: never deliver it again. On a channel that counts, the publisher gets `refused` with these words."""

    reader: int
    tag: int
    code: str
    detail: str


class Unsubscribe(msgspec.Struct, array_like=True, frozen=True, tag="unsubscribe"):
    """Client: this reader ends; what it did not answer goes to another. Not answered."""

    reader: int


class Welcome(msgspec.Struct, array_like=True, frozen=True, tag="welcome"):
    """Hub: I hear you."""

    session: int
    """Another number than before: the hub does not know you any more (it or the connection is new). Subscribe again,
    publish again what is unanswered, forget what was delivered."""
    heartbeat_ms: int
    """Say `hello` this often; several missed, and readers lose what they have not answered."""


class Accepted(msgspec.Struct, array_like=True, frozen=True, tag="accepted"):
    """Hub: safe to forget."""

    tickets: list[int]


class Failed(msgspec.Struct, array_like=True, frozen=True, tag="failed"):
    """Hub: not now; publish again, with the same key. Codes: FULL, NO_READER, DEADLINE, CLOSING."""

    ticket: int
    code: str
    detail: str


class Refused(msgspec.Struct, array_like=True, frozen=True, tag="refused"):
    """Hub: never. `code` is the refusing reader's, or UNKNOWN_TOPIC, FORBIDDEN, LIMIT."""

    ticket: int
    code: str
    detail: str


class Subscribed(msgspec.Struct, array_like=True, frozen=True, tag="subscribed"):
    """Hub: the reader reads."""

    reader: int


class Unsubscribed(msgspec.Struct, array_like=True, frozen=True, tag="unsubscribed"):
    """Hub: the reader does not read. `code`: UNKNOWN_TOPIC, FORBIDDEN, CONFLICT, LIMIT, CLOSING."""

    reader: int
    code: str
    detail: str


class Deliver(msgspec.Struct, array_like=True, frozen=True, tag="deliver"):
    """Hub, with a batch: answer with `ack`, `nak` or `refuse` under this tag."""

    reader: int
    tag: int
    lane: Lane
    key: BatchKey | None
    redelivered: bool


class Gap(msgspec.Struct, array_like=True, frozen=True, tag="gap"):
    """Hub: the channel fell behind and lost its oldest `missed` batches, since the last `gap`."""

    reader: int
    missed: int


class Error(msgspec.Struct, array_like=True, frozen=True, tag="error"):
    """Hub: what you sent means nothing to me. `code`: malformed, version, limit."""

    code: str
    detail: str


FULL: Final = "full"
NO_READER: Final = "no-reader"
DEADLINE: Final = "deadline"
CLOSING: Final = "closing"
UNKNOWN_TOPIC: Final = "unknown-topic"
FORBIDDEN: Final = "forbidden"
CONFLICT: Final = "conflict"
LIMIT: Final = "limit"

_Frame = TypeVar("_Frame")
ClientFrame = Hello | Publish | Subscribe | Ack | Nak | Refuse | Unsubscribe
HubFrame = Welcome | Accepted | Failed | Refused | Subscribed | Unsubscribed | Deliver | Gap | Error

_VERSION_BYTE: Final = bytes((VERSION,))
_encoder: Final = msgspec.msgpack.Encoder()
_client_decoder: Final = msgspec.msgpack.Decoder(ClientFrame)
_hub_decoder: Final = msgspec.msgpack.Decoder(HubFrame)


def encode_frame(frame: ClientFrame | HubFrame) -> bytes:
    return _VERSION_BYTE + _encoder.encode(frame)


def decode_client_frame(parts: Sequence[bytes]) -> tuple[ClientFrame, bytes]:
    """What a client said, and the batch that came with it (else empty). Raises a WireError."""
    frame = _decode(parts, _client_decoder)
    return frame, _batch(parts, isinstance(frame, Publish))


def decode_hub_frame(parts: Sequence[bytes]) -> tuple[HubFrame, bytes]:
    """What the hub said, and the batch that came with it (else empty). Raises a WireError."""
    frame = _decode(parts, _hub_decoder)
    return frame, _batch(parts, isinstance(frame, Deliver))


def _decode(parts: Sequence[bytes], decoder: msgspec.msgpack.Decoder[_Frame]) -> _Frame:
    if not parts or not parts[0]:
        raise MalformedError("a message without its first part")
    head = parts[0]
    if head[0] != VERSION:
        raise VersionError(f"frame version {head[0]}; this side reads version {VERSION}")
    if len(head) > HEAD_BYTES_MAX:
        raise LimitError(f"frame of {len(head):,} bytes; the limit is {HEAD_BYTES_MAX:,}")
    try:
        return decoder.decode(memoryview(head)[1:])
    except UNREADABLE as error:
        raise MalformedError(f"frame: {error}") from None


def _batch(parts: Sequence[bytes], expected: bool) -> bytes:
    if len(parts) != 1 + expected:
        raise MalformedError(f"a message of {len(parts)} parts where {1 + expected} belong")
    return parts[1] if expected else b""
