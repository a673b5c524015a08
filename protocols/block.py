"""The block: batches under consecutive record numbers, compressed and checksummed once, by the recorder.

The same bytes stand in the log, travel over the link and lie in JetStream: nothing between the gateway's disk and the
message processor opens them.

    offset  size  field (little endian)
    0       4     magic "TGB1" (the digit is the version)
    4       1     flags: bit 0 body is compressed with zstd
    5       1     highest priority of its records
    6       2     number of batches
    8       8     epoch
    16      8     first seq
    24      4     number of records
    28      4     length of the body
    32      4     length of the body before compression
    36      8     newest received time of its records, Unix ms
    44      4     CRC-32 (zlib) of bytes 0 to 43 and the body
    48      …     body: for each batch, 4 bytes length and the batch (batch.py)
"""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Sequence
from typing import Final

import msgspec
import zstandard

from protocols.batch import RecordBatch, decode_records
from protocols.errors import ChecksumError, LimitError, MalformedError, VersionError
from protocols.limits import BLOCK_BYTES_MAX
from protocols.messages import Priority

MAGIC: Final = b"TGB1"
_HEAD: Final = struct.Struct("<4sBBHQQIIIQ")
_CRC: Final = struct.Struct("<I")
HEAD_BYTES: Final = _HEAD.size + _CRC.size
_LENGTH: Final = struct.Struct("<I")
_ZSTD_FLAG: Final = 1
_COMPRESS_FROM_BYTES: Final = 256
"""Below it, compression costs more than it saves."""


class _Zstd(threading.local):
    """One of each a thread: they may not be used by two at once, and the log compresses in a thread of its own."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=1, write_content_size=True, write_checksum=False)
        self.decompressor = zstandard.ZstdDecompressor()


_zstd: Final = _Zstd()


class BlockHead(msgspec.Struct, frozen=True):
    """What is known of a block without opening it."""

    flags: int
    priority: Priority
    batches: int
    epoch: int
    first_seq: int
    records: int
    body_bytes: int
    raw_bytes: int
    newest_ms: int

    @property
    def end_seq(self) -> int:
        """The number after the block's last record."""
        return self.first_seq + self.records

    @property
    def size(self) -> int:
        """Bytes of the whole block."""
        return HEAD_BYTES + self.body_bytes


def encode_block(
    batches: Sequence[bytes], *, epoch: int, first_seq: int, records: int, newest_ms: int, priority: Priority
) -> bytes:
    """`batches`: each as encode_records gave it; `records`: the sum of their rows."""
    parts: list[bytes] = []
    for batch in batches:
        parts.append(_LENGTH.pack(len(batch)))
        parts.append(batch)
    raw = b"".join(parts)
    if len(raw) > BLOCK_BYTES_MAX:
        raise LimitError(f"block of {len(raw):,} bytes; the limit is {BLOCK_BYTES_MAX:,}")
    body, flags = raw, 0
    if len(raw) >= _COMPRESS_FROM_BYTES:
        compressed = _zstd.compressor.compress(raw)
        if len(compressed) < len(raw):
            body, flags = compressed, _ZSTD_FLAG
    head = _HEAD.pack(MAGIC, flags, priority, len(batches), epoch, first_seq, records, len(body), len(raw), newest_ms)
    return b"".join((head, _CRC.pack(zlib.crc32(body, zlib.crc32(head))), body))


def read_head(data: bytes | memoryview, offset: int = 0) -> BlockHead:
    """Parses the 48 bytes at `offset`; their checksum can only be told with the body (check_block)."""
    if len(data) - offset < HEAD_BYTES:
        raise MalformedError(f"{len(data) - offset} bytes are shorter than a block's {HEAD_BYTES}-byte head")
    magic, flags, priority, batches, epoch, first_seq, records, body_bytes, raw_bytes, newest_ms = _HEAD.unpack_from(
        data, offset
    )
    if magic != MAGIC:
        if magic[:3] == MAGIC[:3]:
            raise VersionError(f"block version {magic[3:]!r}; this side reads {MAGIC[3:]!r}")
        raise MalformedError("not a block: the magic number is missing")
    if raw_bytes > BLOCK_BYTES_MAX or body_bytes > raw_bytes:
        raise LimitError(f"block of {max(raw_bytes, body_bytes):,} bytes; the limit is {BLOCK_BYTES_MAX:,}")
    if priority > max(Priority) or flags & ~_ZSTD_FLAG:
        raise MalformedError("block head has an unknown flag or priority")
    return BlockHead(flags, Priority(priority), batches, epoch, first_seq, records, body_bytes, raw_bytes, newest_ms)


def check_block(data: bytes | memoryview, offset: int = 0) -> BlockHead:
    """The head of the block at `offset`, once its checksum holds."""
    head = read_head(data, offset)
    view = memoryview(data)[offset : offset + head.size]
    if len(view) < head.size:
        raise MalformedError(f"block of {head.size:,} bytes ends after {len(view):,}")
    (crc,) = _CRC.unpack_from(view, _HEAD.size)
    if zlib.crc32(view[HEAD_BYTES:], zlib.crc32(view[: _HEAD.size])) != crc:
        raise ChecksumError(f"CRC-32 of block {head.epoch:016x}/{head.first_seq} does not match")
    return head


def open_block(data: bytes | memoryview) -> tuple[BlockHead, list[RecordBatch]]:
    """Checks, decompresses and decodes a whole block."""
    head, encoded = split_block(data)
    batches = [decode_records(batch) for batch in encoded]
    if sum(map(len, batches)) != head.records:
        raise MalformedError("block holds another number of records than its head says")
    return head, batches


def split_block(data: bytes | memoryview) -> tuple[BlockHead, list[memoryview]]:
    """Checks and decompresses a whole block; its batches are left encoded."""
    head = check_block(data)
    body: bytes | memoryview = memoryview(data)[HEAD_BYTES : head.size]
    if head.flags & _ZSTD_FLAG:
        body = _decompress(body, head.raw_bytes)
    elif len(body) != head.raw_bytes:
        raise MalformedError("block body has another length than its head says")
    view = memoryview(body)
    batches: list[memoryview] = []
    at = 0
    while at < len(view):
        if len(view) - at < _LENGTH.size:
            raise MalformedError("block ends within a batch's length")
        (length,) = _LENGTH.unpack_from(view, at)
        at += _LENGTH.size
        if len(view) - at < length:
            raise MalformedError("block ends within a batch")
        batches.append(view[at : at + length])
        at += length
    if len(batches) != head.batches:
        raise MalformedError("block holds another number of batches than its head says")
    return head, batches


def expand_block(data: bytes | memoryview) -> bytes:
    """The block's head as it is, then its body before compression: what many small blocks are compressed together as.

    Raises a WireError if the block is damaged.
    """
    head = check_block(data)
    view = memoryview(data)
    if not head.flags & _ZSTD_FLAG:
        return bytes(view[: head.size])
    return bytes(view[:HEAD_BYTES]) + _decompress(view[HEAD_BYTES : head.size], head.raw_bytes)


def restore_block(data: bytes | memoryview, offset: int = 0) -> tuple[bytes, int]:
    """The block that was expanded at `offset`, byte for byte, and the offset behind it.

    zstd gives the same bytes only in the same version: ChecksumError if these do not match the head's checksum, and
    then the block has to travel as it is.
    """
    head = read_head(data, offset)
    end = offset + HEAD_BYTES + head.raw_bytes
    view = memoryview(data)[offset:end]
    if len(view) < end - offset:
        raise MalformedError(f"expanded block of {end - offset:,} bytes ends after {len(view):,}")
    raw: bytes | memoryview = view[HEAD_BYTES:]
    body = _zstd.compressor.compress(raw) if head.flags & _ZSTD_FLAG else raw
    if len(body) != head.body_bytes:
        raise ChecksumError(
            f"block {head.epoch:016x}/{head.first_seq} does not compress to the bytes it was written as"
        )
    block = b"".join((view[:HEAD_BYTES], body))
    check_block(block)
    return block, end


def _decompress(body: bytes | memoryview, raw_bytes: int) -> bytes:
    """Looks at the size that the zstd frame itself claims first: that is what would be allocated for it."""
    try:
        if zstandard.get_frame_parameters(body).content_size != raw_bytes:
            raise MalformedError("block body has another length than its head says")
        return _zstd.decompressor.decompress(body)
    except zstandard.ZstdError as error:
        raise MalformedError(f"block body does not decompress: {error}") from None
