"""Segment header, state, batch keys, linger: pure parts of the log."""

from __future__ import annotations

import random
import struct
import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.batch import BatchKey
from protocols.errors import MalformedError, VersionError, WireError
from protocols.messages import GapKind
from sync.log.epoch import Folded
from sync.log.gaps import GapState
from sync.log.keys import KeyTable
from sync.log.linger import Linger
from sync.log.segment import (
    HEADER_BYTES,
    NOTHING_BEFORE,
    Ended,
    SegmentHeader,
    decode_header,
    encode_header,
    header_size,
    segment_name,
    segment_ordinal,
)
from sync.log.settings import (
    ACCEPTED_RANGES_MAX,
    ENDS_MAX,
    GAPS_MAX,
    KEY_RANGES_MAX,
    KEY_RUNS_MAX,
    LOST_RANGES_MAX,
    STATE_FILE_BYTES,
)
from sync.log.state import EpochState, State, Totals, decode_state, encode_state
from sync.ranges import Ranges

U63 = st.integers(0, 2**63 - 1)
HEADER = encode_header(SegmentHeader(1, 2, 3, NOTHING_BEFORE, [(7, [(0, 5)])]))
REMEMBERED = State(
    Totals(9, 6, 1, 2),
    [EpochState(5, Folded(10, 7, 2), [0, 4, 3, 1], [2, 2], [])],
    [Ended(3, 100, 12, 5)],
    Ended(4, 200, 14, 1),
    [GapState(5, GapKind.EVICTED, 1, 2, 3, 0, [2, 2], [])],
    1,
)
STATE = encode_state(REMEMBERED, 41)


class TestHeader:
    @given(U63, st.integers(0, 2**40), U63, U63, st.lists(st.tuples(U63, st.lists(st.tuples(U63, U63)))), st.booleans())
    def test_what_goes_in_comes_out(
        self, epoch: int, seq: int, at_ms: int, end: int, keys: list[tuple[int, list[tuple[int, int]]]], own: bool
    ) -> None:
        header = SegmentHeader(
            epoch, seq, at_ms, Ended(end, end, seq, 5), keys, Ended(9, 1 + end // 2, seq, 3) if own else None
        )
        data = encode_header(header)
        assert header_size(data[:HEADER_BYTES]) == len(data)
        assert decode_header(data + b"blocks", 9) == msgspec.structs.replace(header, size=len(data))

    def test_version_1_is_read(self) -> None:
        body = msgspec.msgpack.encode([[7, [[0, 5]]]])
        head = struct.pack("<4sIQQQQQQ", b"TGS1", len(body), 1, 2, 3, 4, 5, 6)
        data = head + struct.pack("<I", zlib.crc32(body, zlib.crc32(head))) + body
        assert decode_header(data + b"blocks", 9) == SegmentHeader(
            1, 2, 3, Ended(4, 5, 6), [(7, [(0, 5)])], None, len(data)
        )

    def test_neither_flipped_bits_nor_missing_bytes_are_let_through(self) -> None:
        for place in range(len(HEADER)):
            damaged = bytearray(HEADER)
            damaged[place] ^= 0x10
            with pytest.raises(WireError):
                decode_header(bytes(damaged), 9)
            with pytest.raises(MalformedError):
                decode_header(HEADER[:place], 9)

    def test_a_newer_version_is_told_from_garbage(self) -> None:
        with pytest.raises(VersionError):
            decode_header(b"TGS9" + HEADER[4:], 9)
        with pytest.raises(MalformedError, match="magic"):
            decode_header(bytes(100), 9)

    @given(st.integers(1, 10**12))
    def test_names_carry_the_ordinal(self, ordinal: int) -> None:
        assert segment_ordinal(segment_name(ordinal)) == ordinal

    @pytest.mark.parametrize("name", ["state.0", "lock", "1.seg", "00000001.seg.bak", "x00000001.seg"])
    def test_other_files_are_no_segments(self, name: str) -> None:
        assert segment_ordinal(name) is None


class TestState:
    def test_what_goes_in_comes_out(self) -> None:
        generation, state = decode_state(STATE + bytes(1000))
        assert generation == 41
        assert state == REMEMBERED

    def test_version_1_is_read(self) -> None:
        """Its body: totals (logged, accepted, damaged), epochs (id, accepted and damaged pairs), ends."""
        body = msgspec.msgpack.encode([[9, 8, 1], [[5, [[0, 4], [7, 9]], [[5, 6]]]], [[3, 100, 12]]])
        head = struct.pack("<4sIQ", b"TGA1", len(body), 6)
        data = head + struct.pack("<I", zlib.crc32(body, zlib.crc32(head))) + body
        generation, state = decode_state(data + bytes(1000))
        assert generation == 6
        assert state.gone == Totals(logged=9, accepted=8, damaged=1, evicted=0)
        assert state.epochs == [EpochState(5, Folded(), [0, 4, 3, 2], [], [5, 1])]
        assert state.ends == [Ended(3, 100, 12)]
        assert (state.active, state.gaps, state.tails) == (None, [], 0)

    def test_neither_flipped_bits_nor_missing_bytes_are_let_through(self) -> None:
        for place in range(len(STATE)):
            damaged = bytearray(STATE)
            damaged[place] ^= 0x10
            with pytest.raises(WireError):
                decode_state(bytes(damaged))
            with pytest.raises(WireError):
                decode_state(STATE[:place])

    def test_all_that_may_be_remembered_fits(self) -> None:
        """At numbers as large as a log comes to in years, and gaps that the cloud has in part."""
        ranges = Ranges((2**36 + 2**17 * n, 2**36 + 2**17 * n + 40_000) for n in range(LOST_RANGES_MAX)).steps()
        accepted = Ranges((2**36 + 2**17 * n, 2**36 + 2**17 * n + 60) for n in range(ACCEPTED_RANGES_MAX)).steps()
        per_gap = 2 * LOST_RANGES_MAX // GAPS_MAX
        gaps = [
            GapState(
                2**62, GapKind.EVICTED, 2**40, 2**40, 2**40, 0, ranges[per_gap * n : per_gap * (n + 1)], [2**36, 1]
            )
            for n in range(GAPS_MAX)
        ]
        ends = [Ended(2**31 + n, 2**24, 2**36, 7) for n in range(ENDS_MAX)]
        full = State(Totals(), [EpochState(2**62, Folded(), accepted, ranges, [])], ends, ends[0], gaps, 9)
        _, state = decode_state(encode_state(full, 2**40))
        assert state == full

    def test_what_does_not_fit_is_what_was_accepted_last(self) -> None:
        epochs = [EpochState(2**62 + n, Folded(), [n, 1], [5, 1] if n % 10 == 0 else [], []) for n in range(20_000)]
        data = encode_state(State(Totals(), epochs, []), 1)
        _, state = decode_state(data)
        assert len(data) <= STATE_FILE_BYTES
        whole = [one for one in state.epochs if one.accepted]
        assert 5_000 < len(whole) < 20_000
        assert whole == epochs[: len(whole)]
        assert [one.epoch for one in state.epochs if one.evicted] == [one.epoch for one in epochs if one.evicted]

    def test_it_fits_whatever_there_is(self) -> None:
        epochs = [EpochState(2**62 + n, Folded(), [], [n, 1], []) for n in range(30_000)]
        data = encode_state(State(Totals(), epochs, []), 1)
        _, state = decode_state(data)
        assert len(data) <= STATE_FILE_BYTES
        assert 5_000 < len(state.epochs) < 30_000


class TestKeyTable:
    @given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12))), st.integers(0, 3), st.integers(0, 12))
    def test_it_knows_exactly_what_was_added(self, added: list[tuple[int, int]], run: int, counter: int) -> None:
        table, loaded = KeyTable(), KeyTable()
        table.add([BatchKey(*each) for each in added])
        loaded.load(table.snapshot(10_000))
        for each in (table, loaded):
            assert (BatchKey(run, counter) in each) == ((run, counter) in added)

    def test_runs_that_were_quiet_the_longest_are_forgotten(self) -> None:
        table = KeyTable()
        table.add([BatchKey(run, 1) for run in range(KEY_RUNS_MAX)])
        table.add([BatchKey(0, 2), BatchKey(KEY_RUNS_MAX, 1)])
        assert len(table) == KEY_RUNS_MAX
        assert BatchKey(0, 1) in table
        assert BatchKey(1, 1) not in table

    def test_the_lowest_ranges_of_a_run_are_forgotten(self) -> None:
        table = KeyTable()
        table.add([BatchKey(1, 2 * n) for n in range(KEY_RANGES_MAX + 3)])
        assert [BatchKey(1, 2 * n) in table for n in range(5)] == [False, False, False, True, True]

    def test_a_snapshot_keeps_within_its_bytes_and_prefers_runs_heard_last(self) -> None:
        table = KeyTable()
        order = random.Random(1).sample(range(KEY_RUNS_MAX), KEY_RUNS_MAX)
        table.add([BatchKey(2**62 + run, 2**62) for run in order])
        snapshot = table.snapshot(8_000)
        assert [run - 2**62 for run, _ in snapshot] == order[-len(snapshot) :]
        assert 200 < len(encode_header(SegmentHeader(1, 1, 1, NOTHING_BEFORE, snapshot))) <= 8_084


class TestLinger:
    def test_it_goes_on_while_many_come(self) -> None:
        linger = Linger(2)
        for _ in range(100):
            assert linger.pays(0)
            linger.learn(0, 3, 10)
            assert linger.pays(1)
            linger.learn(1, 13, 10)
            assert not linger.pays(2)

    def test_it_hardly_waits_where_nobody_comes(self) -> None:
        """Thin traffic, or a publisher that waits for this very sync."""
        linger = Linger(2)
        waits = 0
        for _ in range(10_000):
            if linger.pays(0):
                waits += 1
                linger.learn(0, 1, 0)
        assert waits < 60

    def test_it_notices_when_traffic_grows_dense_again(self) -> None:
        linger = Linger(1)
        for _ in range(10_000):
            if linger.pays(0):
                linger.learn(0, 1, 0)
        groups = next(n for n in range(1_000) if linger.pays(0))
        assert groups < 256
        linger.learn(0, 2, 9)
        assert linger.pays(0)

    def test_none_is_none(self) -> None:
        assert not Linger(0).pays(0)
