"""Small blocks, compressed together once more for the way over the link.

A block of one record is 250 bytes, whatever compresses it alone. Thin traffic that waited out an outage is many such
blocks, much alike: their heads and uncompressed bodies, one after the other as one zstd frame, take a seventh of that.
The cloud makes the very bytes of the log from it again, since zstd is deterministic within a version; the block's own
checksum proves it. So the feature names the version, and both ends must have the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import zstandard

from protocols.block import expand_block, read_head, restore_block
from protocols.errors import LimitError, MalformedError, WireError
from sync.link.limits import FRAME_BLOCKS_MAX, REGROUP_BYTES_MAX, REGROUP_RAW_BYTES_MAX

FEATURE: Final = "regroup-zstd-" + ".".join(map(str, zstandard.ZSTD_VERSION))

_WORTH: Final = 0.9
"""Regrouped blocks must be at least this much smaller, or the cloud's work is not worth it."""

_compressor: Final = zstandard.ZstdCompressor(level=1, write_content_size=True)
_decompressor: Final = zstandard.ZstdDecompressor()


def regroup(blocks: Sequence[bytes]) -> bytes | None:
    """The blocks together; None where that does not pay, or where one is damaged: the cloud shall see and name it."""
    if len(blocks) < 2 or sum(read_head(block).raw_bytes for block in blocks) > REGROUP_BYTES_MAX * len(blocks):
        return None
    try:
        expanded = b"".join(map(expand_block, blocks))
    except WireError:
        return None
    if len(expanded) > REGROUP_RAW_BYTES_MAX:
        return None
    together = _compressor.compress(expanded)
    return together if len(together) < _WORTH * sum(map(len, blocks)) else None


def ungroup(data: bytes) -> list[bytes]:
    """The blocks, byte for byte as they were regrouped. Raises a WireError: ask for them one by one."""
    try:
        size = zstandard.get_frame_parameters(data).content_size
        if size > REGROUP_RAW_BYTES_MAX:
            raise LimitError(f"regrouped blocks of {size:,} bytes; the limit is {REGROUP_RAW_BYTES_MAX:,}")
        expanded = _decompressor.decompress(data)
    except zstandard.ZstdError as error:
        raise MalformedError(f"regrouped blocks do not decompress: {error}") from None
    blocks: list[bytes] = []
    at = 0
    while at < len(expanded):
        if len(blocks) == FRAME_BLOCKS_MAX:
            raise LimitError(f"more than {FRAME_BLOCKS_MAX} regrouped blocks")
        block, at = restore_block(expanded, at)
        blocks.append(block)
    return blocks
