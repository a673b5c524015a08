"""The block: what goes in comes out, and nothing that is not whole does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.batch import BatchKey, RecordBatch, encode_records, read_key
from protocols.block import (
    HEAD_BYTES,
    BlockHead,
    check_block,
    encode_block,
    expand_block,
    open_block,
    read_head,
    restore_block,
    split_block,
)
from protocols.errors import ChecksumError, LimitError, MalformedError, VersionError, WireError
from protocols.limits import BLOCK_BYTES_MAX
from protocols.messages import Clock, ClockState, Origin, Priority

EPOCH = 2**63 - 1
NOW_MS = 1_700_000_000_000


def batch(counter: int, payloads: list[bytes]) -> RecordBatch:
    rows = len(payloads)
    origin = Origin("demo", "serial", "pump-1", "up", "", "mqtt")
    return RecordBatch(
        BatchKey(7, counter), Clock(1, 5, ClockState.RESTORED), NOW_MS, [origin], [0] * rows, [3] * rows, payloads
    )


def block(batches: list[RecordBatch], first_seq: int = 40) -> bytes:
    return encode_block(
        [encode_records(each) for each in batches],
        epoch=EPOCH,
        first_seq=first_seq,
        records=sum(map(len, batches)),
        newest_ms=NOW_MS + 3,
        priority=Priority.EVENT,
    )


payload_lists = st.lists(st.lists(st.binary(max_size=300), min_size=1, max_size=5), min_size=1, max_size=4)
SMALL = block([batch(1, [b"one"])])
LARGE = block([batch(1, [b'{"temperature":71.5}' * 20] * 10), batch(2, [b"two"])])


@given(payload_lists)
def test_what_goes_in_comes_out(lists: list[list[bytes]]) -> None:
    batches = [batch(counter, payloads) for counter, payloads in enumerate(lists)]
    data = block(batches)
    head, opened = open_block(data)
    assert opened == batches
    assert (head.epoch, head.first_seq, head.end_seq) == (EPOCH, 40, 40 + sum(map(len, lists)))
    assert (head.priority, head.newest_ms, head.batches) == (Priority.EVENT, NOW_MS + 3, len(lists))
    assert head.size == len(data)
    assert check_block(b"before" + data + b"behind", 6) == head


@given(payload_lists)
def test_keys_are_told_without_decoding_the_rows(lists: list[list[bytes]]) -> None:
    data = block([batch(counter, payloads) for counter, payloads in enumerate(lists)])
    head, encoded = split_block(data)
    assert head == read_head(data)
    assert [read_key(each) for each in encoded] == [BatchKey(7, counter) for counter in range(len(lists))]


@given(payload_lists)
def test_an_expanded_block_is_restored_byte_for_byte(lists: list[list[bytes]]) -> None:
    data = block([batch(counter, payloads) for counter, payloads in enumerate(lists)])
    expanded = expand_block(data)
    assert len(expanded) == HEAD_BYTES + read_head(data).raw_bytes
    assert restore_block(b"x" + expanded, 1) == (data, 1 + len(expanded))


@pytest.mark.parametrize("data", [SMALL, LARGE])
def test_no_flipped_bit_is_let_through(data: bytes) -> None:
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 0x10
        with pytest.raises(WireError):
            open_block(bytes(damaged))


@pytest.mark.parametrize("data", [SMALL, LARGE])
def test_no_shortened_block_is_let_through(data: bytes) -> None:
    for length in range(len(data)):
        with pytest.raises(MalformedError):
            check_block(data[:length])


def test_repeated_payloads_are_compressed_and_tiny_ones_left_alone() -> None:
    assert read_head(LARGE).body_bytes < read_head(LARGE).raw_bytes / 4
    assert read_head(SMALL).body_bytes == read_head(SMALL).raw_bytes


def test_five_hundred_records_take_less_than_thirty_bytes_each() -> None:
    payloads = [
        b'{"boot":17,"seq":%07d,"temperature":%d.%02d,"state":"on"}' % (n, 60 + n % 9, n % 97) for n in range(500)
    ]
    assert len(block([batch(1, payloads)])) < 30 * 500


def test_a_block_over_the_limit_is_not_made() -> None:
    with pytest.raises(LimitError, match="2,097,152"):
        encode_block(
            [bytes(BLOCK_BYTES_MAX)], epoch=1, first_seq=0, records=1, newest_ms=0, priority=Priority.TELEMETRY
        )


def test_a_head_that_claims_too_much_is_refused_before_anything_is_allocated() -> None:
    claims = bytearray(SMALL)
    claims[28:36] = (BLOCK_BYTES_MAX + 1).to_bytes(4, "little") * 2
    with pytest.raises(LimitError):
        read_head(bytes(claims))


def test_a_newer_version_is_told_from_garbage() -> None:
    with pytest.raises(VersionError):
        read_head(b"TGB2" + SMALL[4:])
    with pytest.raises(MalformedError, match="magic"):
        read_head(b"JUNK" + SMALL[4:])


@pytest.mark.parametrize(("batches", "records"), [(2, 1), (1, 2)])
def test_a_block_that_holds_other_than_its_head_says_is_refused(batches: int, records: int) -> None:
    encoded = [encode_records(batch(n, [b"row"])) for n in range(batches)]
    data = encode_block(encoded, epoch=1, first_seq=0, records=records, newest_ms=0, priority=Priority.TELEMETRY)
    with pytest.raises(MalformedError, match="number of records"):
        open_block(data)


def test_a_damaged_expanded_block_is_not_restored() -> None:
    expanded = bytearray(expand_block(LARGE))
    expanded[-1] ^= 1
    with pytest.raises(ChecksumError):
        restore_block(bytes(expanded))


def test_sizes_follow_from_the_head() -> None:
    assert isinstance(read_head(SMALL), BlockHead)
    assert read_head(SMALL).size == HEAD_BYTES + read_head(SMALL).body_bytes == len(SMALL)
