"""Live first, backfill never starved."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.messages import Lane
from sync.bus.lanes import BACKFILL_SHARE, LaneQueue


class Batch(msgspec.Struct, frozen=True):
    lane: Lane
    data: bytes
    number: int = 0


def filled(live: list[int], backfill: list[int]) -> LaneQueue[Batch]:
    queue: LaneQueue[Batch] = LaneQueue()
    for lane, sizes in ((Lane.LIVE, live), (Lane.BACKFILL, backfill)):
        for number, size in enumerate(sizes):
            queue.push(Batch(lane, bytes(size), number))
    return queue


def test_live_goes_first() -> None:
    queue = filled([10, 10], [10])
    assert [queue.take(1, 1000)[0].lane for _ in range(3)] == [Lane.LIVE, Lane.LIVE, Lane.BACKFILL]


def test_backfill_gets_its_share_of_the_bytes_while_both_wait() -> None:
    # Live batches are small and backfill's are large: it is bytes that cost a reader its time.
    queue = filled([1000] * 400, [10_000] * 400)
    taken = {Lane.LIVE: 0, Lane.BACKFILL: 0}
    while queue.batches(Lane.LIVE):
        for batch in queue.take(1, 1_000_000):
            taken[batch.lane] += len(batch.data)
    share = taken[Lane.BACKFILL] / sum(taken.values())
    assert share == pytest.approx(BACKFILL_SHARE, abs=0.02)


def test_a_lone_lane_saves_up_no_claims() -> None:
    queue = filled([1000] * 100, [])
    for _ in range(100):
        queue.take(1, 1000)
    for lane in (Lane.BACKFILL, Lane.LIVE):
        queue.push(Batch(lane, bytes(10)))
    assert queue.take(1, 1000)[0].lane is Lane.LIVE
    queue = filled([1000, 10, 10], [10])
    assert [queue.take(1, 1000)[0].lane for _ in range(3)] == [Lane.LIVE, Lane.BACKFILL, Lane.LIVE]
    queue.push(Batch(Lane.BACKFILL, bytes(10)))
    assert queue.take(1, 1000)[0].lane is Lane.LIVE


sizes = st.lists(st.integers(0, 50), max_size=20)


@given(live=sizes, backfill=sizes, batches_max=st.integers(1, 5), bytes_max=st.integers(1, 100))
def test_everything_comes_out_once_in_order_within_bounds(
    live: list[int], backfill: list[int], batches_max: int, bytes_max: int
) -> None:
    queue = filled(live, backfill)
    seen: dict[Lane, list[int]] = {lane: [] for lane in Lane}
    while queue:
        taken = queue.take(batches_max, bytes_max)
        assert len({batch.lane for batch in taken}) == 1
        assert len(taken) <= batches_max
        assert len(taken) == 1 or sum(len(batch.data) for batch in taken) <= bytes_max
        seen[taken[0].lane] += [batch.number for batch in taken]
    assert seen == {Lane.LIVE: list(range(len(live))), Lane.BACKFILL: list(range(len(backfill)))}
    assert queue.bytes(Lane.LIVE) == queue.bytes(Lane.BACKFILL) == 0


def test_drain_leaves_nothing() -> None:
    queue = filled([1, 2], [3])
    assert [len(batch.data) for batch in queue.drain()] == [1, 2, 3]
    assert not queue
    assert queue.bytes(Lane.LIVE) == 0
