from __future__ import annotations

import pytest
import zstandard

from protocols.block import HEAD_BYTES, expand_block
from protocols.errors import ChecksumError, LimitError, MalformedError, WireError
from sync.link.limits import FRAME_BLOCKS_MAX
from sync.link.regroup import regroup, ungroup
from tests.sync.link.blocks import blocks


@pytest.mark.parametrize(("records", "bytes_max"), [(1, 40), (2, 33), (5, 26), (10, 22), (50, 17)])
def test_small_blocks_travel_in_a_fraction_of_their_size_and_come_out_as_they_were(
    records: int, bytes_max: int
) -> None:
    count = min(500 // records, 500)
    made = blocks(count, records)
    together = regroup(made)
    assert together is not None
    assert ungroup(together) == made
    assert len(together) < 0.85 * sum(map(len, made))
    assert len(together) / (count * records) <= bytes_max


def test_what_gains_nothing_travels_as_it_is() -> None:
    assert regroup(blocks(1, 10)) is None
    assert regroup(blocks(4, 500)) is None
    assert sum(map(len, blocks(4, 500))) / 2000 <= 15


def test_a_damaged_block_is_left_for_the_cloud_to_name() -> None:
    made = blocks(10, 5)
    made[4] = made[4][:-1] + bytes((made[4][-1] ^ 1,))
    assert regroup(made) is None


def test_blocks_that_another_zstd_wrote_are_asked_for_as_they_are() -> None:
    """Same content, other compressed bytes than this version would make."""
    block = blocks(1, 10)[0]
    expanded = expand_block(block)
    head = bytearray(expanded[:HEAD_BYTES])
    head[44] ^= 1  # stands for the checksum over other bytes
    with pytest.raises(ChecksumError):
        ungroup(zstandard.compress(bytes(head) + expanded[HEAD_BYTES:]))
    head[28] ^= 1  # their length
    with pytest.raises(ChecksumError):
        ungroup(zstandard.compress(bytes(head) + expanded[HEAD_BYTES:]))


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", MalformedError),
        (b"not zstd", MalformedError),
        (zstandard.compress(b"not a block, but long enough to have been one, had it begun with its magic"), WireError),
        (zstandard.compress(expand_block(blocks(1, 10)[0])[:-1]), MalformedError),
        (zstandard.compress(bytes(64 << 20)), LimitError),
        (zstandard.compress(b"".join(map(expand_block, blocks(FRAME_BLOCKS_MAX + 1)))), LimitError),
    ],
)
def test_what_is_no_group_of_blocks_is_a_wire_error(data: bytes, error: type[WireError]) -> None:
    with pytest.raises(error):
        ungroup(data)
