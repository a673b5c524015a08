"""Batches: what goes in comes out, and damaged or oversized ones are named for what they are."""

from __future__ import annotations

import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols import limits
from protocols.batch import BatchKey, RecordBatch, decode_records, encode_records, read_key
from protocols.errors import ChecksumError, LimitError, MalformedError, VersionError, WireError
from protocols.messages import Clock, ClockState, Origin, Priority

ORIGINS = [Origin("demo", "serial", f"d{i}", "up", "", "mqtt", Priority(i % 3)) for i in range(5)]


def batch_of(rows: list[tuple[int, int, bytes]], origins: list[Origin] = ORIGINS) -> RecordBatch:
    return RecordBatch(
        BatchKey(7, 1),
        Clock(3, 1_700_000_000_000, ClockState.SYNCHRONIZED),
        1_700_000_000_000,
        origins,
        [row[0] for row in rows],
        [row[1] for row in rows],
        [row[2] for row in rows],
    )


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-5000, 5000), st.binary(max_size=60)), min_size=1))
def test_round_trip(rows: list[tuple[int, int, bytes]]) -> None:
    batch = batch_of(rows)
    again = decode_records(encode_records(batch))
    assert again == batch
    assert [(r.origin, r.payload) for r in again.records()] == [(ORIGINS[i], payload) for i, _, payload in rows]


def test_a_batch_is_malformed_whose_rows_are_nested_too_deeply() -> None:
    body = b"\x92\x92\x07\x01" + b"\x91" * 100_000
    data = b"\x01" + zlib.crc32(body).to_bytes(4, "little") + body
    for read in (read_key, decode_records):
        with pytest.raises(MalformedError):
            read(data)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_flipped_byte_is_noticed(at: int, flip: int) -> None:
    data = bytearray(encode_records(batch_of([(0, 0, b"x" * 50)])))
    data[at % len(data)] ^= flip
    with pytest.raises((ChecksumError, VersionError)):
        decode_records(bytes(data))


@pytest.mark.parametrize(
    ("batch", "error", "said"),
    [
        (batch_of([]), LimitError, "0 records"),
        (batch_of([(5, 0, b"")]), MalformedError, "origin_index"),
        (batch_of([(-1, 0, b"")]), MalformedError, "origin_index"),
        (msgspec.structs.replace(batch_of([(0, 0, b"")]), payloads=[b"", b""]), MalformedError, "length"),
        (batch_of([(0, 0, b"x" * (limits.PAYLOAD_BYTES_MAX + 1))]), LimitError, "262,144"),
        (batch_of([(0, 0, b"")], [Origin("n", "k", "a" * 129, "", "", "")]), LimitError, "alias is longer than 128"),
        (batch_of([(0, 0, b"")], [Origin("n", "k", "a", "t" * 513, "", "")]), LimitError, "topic is longer than 512"),
        (batch_of([(0, 0, b"x" * 200_000)] * 6), LimitError, "1,048,576"),
        (batch_of([(0, 0, b"")] * (limits.BATCH_RECORDS_MAX + 1)), LimitError, "4096"),
    ],
)
def test_what_passes_a_limit_names_it(batch: RecordBatch, error: type[WireError], said: str) -> None:
    with pytest.raises(error) as caught:
        decode_records(encode_records(batch))
    assert said in caught.value.detail


def test_a_newer_version_is_told_from_damage() -> None:
    data = bytearray(encode_records(batch_of([(0, 0, b"x")])))
    data[0] = 2
    with pytest.raises(VersionError, match="version 2"):
        decode_records(bytes(data))


def test_text_that_is_not_utf_8_is_malformed() -> None:
    """As only a stranger's program writes it, checksum and all."""
    body = encode_records(batch_of([(0, 0, b"x")]))[5:].replace(b"serial", b"seri\xff\xfe")
    with pytest.raises(MalformedError, match="body"):
        decode_records(bytes((1,)) + zlib.crc32(body).to_bytes(4, "little") + body)
