"""What gateways make of records and send over the link: batches, blocks, frames; and what stands beside a payload."""

from __future__ import annotations

import zlib
from typing import Final, get_args

import msgspec
import zstandard

from protocols import batch as batches
from protocols import block as blocks
from protocols.batch import BatchKey, RecordBatch, decode_records, encode_records, read_key
from protocols.block import HEAD_BYTES, check_block, encode_block, expand_block, open_block, read_head, restore_block
from protocols.errors import WireError
from protocols.limits import BATCH_RECORDS_MAX, METADATA_BYTES_MAX, PAYLOAD_BYTES_MAX
from protocols.messages import Clock, ClockState, Origin, Priority
from protocols.metadata import METADATA, decode_metadata, encode_metadata, with_metadata
from sync.link import frames
from sync.link.frames import decode_frame, encode_frame
from sync.link.limits import FRAME_BLOCKS_MAX
from sync.link.regroup import regroup, ungroup
from tests.fuzz.target import TAKEN, Parser, Stretch
from tests.sync.link.test_frames import ONE_OF_EACH

NOW_MS: Final = 1_770_000_000_000


def batch(counter: int, payloads: list[bytes], metadata: list[bytes] | None = None) -> bytes:
    rows = len(payloads)
    origins = [
        Origin("quay", "serial", "pump", "up", "", "mqtt"),
        Origin("quay", "", "", "t", "json", "x", Priority.ALARM),
    ]
    index = [row % 2 for row in range(rows)]
    clock = Clock(3, NOW_MS, ClockState.SYNCHRONIZED)
    return encode_records(
        RecordBatch(BatchKey(7, counter), clock, NOW_MS, origins, index, list(range(rows)), payloads, metadata or [])
    )


BATCHES: Final = (
    batch(1, [b'{"t":21.5}', b"x"]),
    batch(2, [b"a" * 300]),
    batch(3, [b"", b"\0"], [encode_metadata({"site": "quay"}), b""]),
)
BLOCKS: Final = tuple(
    encode_block(several, epoch=2**62, first_seq=40, records=rows, newest_ms=NOW_MS, priority=Priority.EVENT)
    for several, rows in (([BATCHES[0]], 2), (list(BATCHES), 5), ([batch(4, [b'{"t":21.5}' * 20] * 9)], 9))
)
TOGETHER: Final = [
    encode_block(
        [batch(n, [b'{"t":21.5}'])], epoch=5, first_seq=n, records=1, newest_ms=NOW_MS, priority=Priority.TELEMETRY
    )
    for n in range(12)
]


def sealed_batch(data: bytes) -> bytes:
    """Under its version and the checksum of its body."""
    body = data[5:]
    return batches._HEAD.pack(batches.VERSION, zlib.crc32(body)) + body


def sealed_block(data: bytes) -> bytes:
    if len(data) < HEAD_BYTES:
        return data
    head, body = data[: blocks._HEAD.size], data[HEAD_BYTES:]
    return head + zlib.crc32(body, zlib.crc32(head)).to_bytes(4, "little") + body


def reads_batch(data: bytes) -> str:
    key: BatchKey | None = None
    try:
        key = read_key(data)
    finally:
        found = decode_records(data)
    assert found.key == key
    rows = list(found.records())
    assert 0 < len(rows) <= BATCH_RECORDS_MAX
    assert all(len(row.payload) <= PAYLOAD_BYTES_MAX and len(row.metadata) <= METADATA_BYTES_MAX for row in rows)
    assert decode_records(encode_records(found)) == found
    return TAKEN


def reads_block(data: bytes) -> str:
    read_head(data)
    head = check_block(data)
    expanded = expand_block(data)
    assert restored(expanded) in (data[: head.size], None)
    opened, found = open_block(data)
    assert opened == head
    assert sum(map(len, found)) == head.records
    return TAKEN


def restored(expanded: bytes) -> bytes | None:
    """None: zstd would write it otherwise."""
    try:
        return restore_block(expanded)[0]
    except WireError:
        return None


def reads_frame(data: bytes) -> str:
    frame = decode_frame(data)
    if frame is None:
        return "unknown"
    assert type(frame) in get_args(frames.Frame)
    assert decode_frame(encode_frame(frame)) == frame
    return TAKEN


def ungroups(data: bytes) -> str:
    found = ungroup(data)
    assert len(found) <= FRAME_BLOCKS_MAX
    for each in found:
        check_block(each)
    return TAKEN


def reads_metadata(data: bytes) -> str:
    found = decode_metadata(data)
    text = with_metadata(b'{"a":1}', data)
    said = msgspec.json.decode(text)
    assert said.pop("a") == 1
    assert said == ({METADATA: found} if found else {})
    assert b"\\u0000" not in text
    return TAKEN if found else "none"


def bomb(raw_bytes: int) -> bytes:
    return zstandard.ZstdCompressor(write_content_size=False).compress(bytes(raw_bytes))


GROUPED: Final = regroup(TOGETHER)
assert GROUPED is not None
DEEP: Final = b"\x91"

PARSERS: Final = (
    Parser(
        "batch",
        reads_batch,
        BATCHES,
        refusals=(WireError,),
        seal=sealed_batch,
        stretches=(
            Stretch(sealed_batch(b"     \x92\x92\x07\x01"), DEEP),
            Stretch(BATCHES[0][:5] + b"\x97\x92\x07\x01\x93\x03\x00\x02\x00\x90\xdc\xff\xff", b"\0"),
        ),
    ),
    Parser(
        "block", reads_block, BLOCKS, refusals=(WireError,), seal=sealed_block, stretches=(Stretch(BLOCKS[0], b"\0"),)
    ),
    Parser(
        "link",
        reads_frame,
        tuple(map(encode_frame, ONE_OF_EACH)),
        refusals=(WireError,),
        stretches=(
            Stretch(b"\x01\x0a\x92\x01", DEEP, b"\x90"),
            Stretch(b"\x01\x08\x91\x9f", DEEP),
            Stretch(b"\x01\x03\x95\x01\xa4live\x00\xdd\x00\x03\xf0\x00", b"\xc4\x00"),
            Stretch(b"\x01\x12\x91\xdd\x00\x01\x00\x00", b"\x93\x07\x00\x01"),
        ),
    ),
    Parser(
        "link:regrouped",
        ungroups,
        (GROUPED, bomb(100_000), zstandard.ZstdCompressor().compress(b"".join(map(expand_block, BLOCKS)))),
        refusals=(WireError,),
        stretches=(Stretch(GROUPED, b"\0"),),
    ),
    Parser(
        "metadata",
        reads_metadata,
        (encode_metadata({"site": "quay", "line": "2"}), encode_metadata({"a\0": "\0", "ü": ""})),
        stretches=(Stretch(b"\x81\xa1a", DEEP), Stretch(b"\xdf\x00\x01\x00\x00", b"\xa1a\xa1b")),
    ),
)
