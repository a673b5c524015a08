"""The batch of records: columns, versioned. What listeners publish, and what a block holds.

    offset  size  field
    0       1     version = 1
    1       4     CRC-32 (zlib) of the body, little endian
    5       …     body: MessagePack array, the fields of RecordBatch in order

Rows share their origins: a record is an index into `origins`, a time as the difference from `base_ms`, and a payload.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Final

import msgspec

from protocols.errors import UNREADABLE, ChecksumError, LimitError, MalformedError, VersionError
from protocols.limits import (
    BATCH_BYTES_MAX,
    BATCH_RECORDS_MAX,
    METADATA_BYTES_MAX,
    NAME_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
    TOPIC_BYTES_MAX,
)
from protocols.messages import Clock, Origin, Record

VERSION: Final = 1
_HEAD: Final = struct.Struct("<BI")


class BatchKey(msgspec.Struct, frozen=True, array_like=True, order=True):
    """Names a batch for good: the recorder keeps one batch of each key, however often it is published.

    Counters of a run are published in rising order. A key is used for one batch only: what was refused is published
    again under a new one.
    """

    run: int
    """Random, 63 bits, one for each start of a publisher."""
    counter: int


class _KeyOnly(msgspec.Struct, array_like=True):
    """A batch's first field; the rest is not looked at."""

    key: BatchKey


class RecordBatch(msgspec.Struct, frozen=True, array_like=True):
    """Records of one publisher. Row i: `origins[origin_index[i]]`, `base_ms + received_delta_ms[i]`, `payloads[i]`,
    `metadata[i]`."""

    key: BatchKey
    clock: Clock
    base_ms: int
    origins: list[Origin]
    origin_index: list[int]
    received_delta_ms: list[int]
    payloads: list[bytes]
    metadata: list[bytes] = []
    """What the protocol said beside the payload: MessagePack maps of text to text, or nothing. Empty where no row has
    any, as in batches that are older than this column."""

    def __len__(self) -> int:
        return len(self.payloads)

    def records(self) -> Iterator[Record]:
        """One object a row: for tests and tools, not for hot paths."""
        metadata = self.metadata or [b""] * len(self)
        rows = zip(self.origin_index, self.received_delta_ms, self.payloads, metadata, strict=True)
        for index, delta, payload, beside in rows:
            yield Record(self.origins[index], payload, self.base_ms + delta, self.clock, beside)


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(RecordBatch)
_key_decoder: Final = msgspec.msgpack.Decoder(_KeyOnly)


def encode_records(batch: RecordBatch) -> bytes:
    body = _encoder.encode(batch)
    return _HEAD.pack(VERSION, zlib.crc32(body)) + body


def decode_records(data: bytes | memoryview) -> RecordBatch:
    """Raises a WireError that says what is wrong; a batch that it returns keeps every limit."""
    body = _checked_body(data)
    try:
        batch = _decoder.decode(body)
    except UNREADABLE as error:
        raise MalformedError(f"batch body: {error}") from None
    _check(batch)
    return batch


def read_key(data: bytes | memoryview) -> BatchKey:
    """The key of an encoded batch, without decoding its rows. Raises a WireError where decode_records would for the
    head, the checksum or the key."""
    try:
        return _key_decoder.decode(_checked_body(data)).key
    except UNREADABLE as error:
        raise MalformedError(f"batch key: {error}") from None


def _checked_body(data: bytes | memoryview) -> memoryview:
    if len(data) > BATCH_BYTES_MAX:
        raise LimitError(f"batch of {len(data):,} bytes; the limit is {BATCH_BYTES_MAX:,}")
    if len(data) < _HEAD.size:
        raise MalformedError(f"batch of {len(data)} bytes is shorter than its {_HEAD.size}-byte head")
    version, crc = _HEAD.unpack_from(data)
    if version != VERSION:
        raise VersionError(f"batch version {version}; this side reads version {VERSION}")
    body = memoryview(data)[_HEAD.size :]
    if zlib.crc32(body) != crc:
        raise ChecksumError("the batch's CRC-32 does not match its body")
    return body


def _check(batch: RecordBatch) -> None:
    rows = len(batch.payloads)
    if not 0 < rows <= BATCH_RECORDS_MAX:
        raise LimitError(f"batch of {rows} records; allowed are 1 to {BATCH_RECORDS_MAX}")
    if len(batch.origin_index) != rows or len(batch.received_delta_ms) != rows:
        raise MalformedError("batch columns differ in length")
    if batch.metadata:
        if len(batch.metadata) != rows:
            raise MalformedError("batch columns differ in length")
        if max(map(len, batch.metadata)) > METADATA_BYTES_MAX:
            raise LimitError(f"metadata is larger than {METADATA_BYTES_MAX:,} bytes")
    if min(batch.origin_index) < 0 or max(batch.origin_index) >= len(batch.origins):
        raise MalformedError("origin_index points outside origins")
    if max(map(len, batch.payloads)) > PAYLOAD_BYTES_MAX:
        raise LimitError(f"a payload is larger than {PAYLOAD_BYTES_MAX:,} bytes")
    for origin in batch.origins:
        check_origin(origin)


def check_origin(origin: Origin) -> None:
    """Raises LimitError where a name or the topic is too long."""
    _check_text("network_id", origin.network_id, NAME_BYTES_MAX)
    _check_text("alias_key", origin.alias_key, NAME_BYTES_MAX)
    _check_text("alias", origin.alias, NAME_BYTES_MAX)
    _check_text("codec", origin.codec, NAME_BYTES_MAX)
    _check_text("listener", origin.listener, NAME_BYTES_MAX)
    _check_text("topic", origin.topic, TOPIC_BYTES_MAX)


def _check_text(name: str, value: str, bytes_max: int) -> None:
    # A character has at most four bytes: nearly every name is short enough without being encoded.
    if len(value) * 4 > bytes_max and len(value.encode()) > bytes_max:
        raise LimitError(f"{name} is longer than {bytes_max} bytes")
