"""What a hop takes upon itself, and whose the rows of a batch are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cloud.model.claim import Claim, rows_by_epoch
from protocols.shipment import MessageBatch, Run, record_places
from sync.ranges import Ranges

RUNS = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(0, 20), st.integers(1, 6)), max_size=8)


@given(RUNS, st.data())
def test_rows_are_counted_for_the_epoch_that_their_record_came_from(
    made: list[tuple[int, int, int, int]], data: st.DataObject
) -> None:
    runs = [Run(*one) for one in made]
    places = record_places(runs)
    record = data.draw(st.lists(st.integers(0, len(places) - 1))) if places else []
    batch = MessageBatch(runs, [], b"", record, [], [], [], [], [], [], [b""] * len(record), [], [])
    rows = data.draw(st.lists(st.integers(0, len(record) - 1), unique=True)) if record else []
    expected: dict[tuple[int, int], int] = {}
    for i in rows:
        run, _ = places[record[i]]
        expected[run.source_id, run.epoch] = expected.get((run.source_id, run.epoch), 0) + 1
    assert rows_by_epoch(batch, rows) == expected


@given(RUNS, RUNS, RUNS)
def test_settling_makes_done_what_was_claimed_and_undone_what_was_released(
    before: list[tuple[int, int, int, int]],
    asked: list[tuple[int, int, int, int]],
    back: list[tuple[int, int, int, int]],
) -> None:
    names = {(source, epoch) for source in (1, 2, 3) for epoch in (1, 2, 3)}
    done = {name: Ranges() for name in names}
    for source, epoch, first, count in before:
        done[source, epoch].add(first, first + count)
    numbers = {name: {n for start, end in ranges for n in range(start, end)} for name, ranges in done.items()}
    claim = Claim("h", [Run(*run) for run in asked], done)
    released = [part for run in back for part in claim.release(Run(*run))]
    claimed = [(part.source_id, part.epoch, n) for part in claim.parts for n in _numbers(part)]
    undone = [(part.source_id, part.epoch, n) for part in released for n in _numbers(part)]
    assert len(set(claimed)) == len(claimed)
    assert len(set(undone)) == len(undone)
    wanted = {(*run[:2], n) for run in asked for n in _numbers(Run(*run))}
    held = {(*name, n) for name, mine in numbers.items() for n in mine}
    assert set(claimed) == wanted - held
    assert set(undone) == {(*run[:2], n) for run in back for n in _numbers(Run(*run))} & held
    for settlement in claim.settlements():
        name = (settlement.source_id, settlement.epoch)
        numbers[name] -= {n for start, end in settlement.released for n in range(start, end)}
        numbers[name] |= {n for start, end in settlement.done for n in range(start, end)}
    assert {(*name, n) for name, mine in numbers.items() for n in mine} == held - set(undone) | set(claimed)


def _numbers(run: Run) -> range:
    return range(run.first_seq, run.first_seq + run.count)
