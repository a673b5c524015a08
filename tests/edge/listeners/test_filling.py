from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge.listeners.filling import BATCH_HEAD_BYTES_MAX, ROW_BYTES_MAX, Filling, Owed
from protocols.batch import BatchKey, decode_records
from protocols.limits import BATCH_BYTES_MAX, BATCH_RECORDS_MAX, PAYLOAD_BYTES_MAX
from protocols.messages import Clock, ClockState, Origin, Priority

CLOCK = Clock(2**63 - 1, 2**62, ClockState.SYNCHRONIZED)
KEY = BatchKey(2**63 - 1, 2**63 - 1)


def origin(number: int, topic: str = "up", priority: Priority = Priority.TELEMETRY) -> Origin:
    return Origin("quay", "serial", f"pump-{number}", topic, "", "mqtt", priority)


def encoded(filling: Filling) -> bytes:
    """Of rows of one priority."""
    (part,) = filling.encode(lambda: KEY)
    key, data = part.key, part.data
    assert key == KEY
    return data


@given(
    st.lists(st.tuples(st.integers(0, 5), st.lists(st.binary(max_size=70_000), min_size=1, max_size=4)), max_size=20)
)
def test_what_is_taken_encodes_within_its_own_estimate(reads: list[tuple[int, list[bytes]]]) -> None:
    origins = [origin(number, "t" * number * 100) for number in range(6)]
    filling = Filling(CLOCK, 2**62)
    expected: list[tuple[Origin, bytes]] = []
    for number, payloads in reads:
        taken = filling.add(origins[number], payloads, 2**63 - 1, None, ())
        expected += [(origins[number], payload) for payload in payloads[:taken]]
        if taken < len(payloads):
            break
    if expected:
        data = encoded(filling)
        assert len(data) <= filling.bytes <= BATCH_BYTES_MAX
        assert [(record.origin, record.payload) for record in decode_records(data).records()] == expected


def test_the_estimate_of_rows_holds_for_the_longest_forms() -> None:
    filling = Filling(CLOCK, 0)
    filling.add(origin(0), [b""] * BATCH_RECORDS_MAX, 2**63 - 1, None, ())
    assert filling.bytes >= len(encoded(filling))
    assert filling.bytes <= BATCH_HEAD_BYTES_MAX + BATCH_RECORDS_MAX * ROW_BYTES_MAX + 100


def test_records_and_bytes_are_bounded() -> None:
    filling = Filling(CLOCK, 0)
    assert filling.add(origin(0), [b"x"] * 5000, 0, None, ()) == BATCH_RECORDS_MAX
    assert filling.add(origin(0), [b"x"], 0, None, ()) == 0
    filling = Filling(CLOCK, 0)
    assert filling.add(origin(0), [b"x" * PAYLOAD_BYTES_MAX] * 5, 0, None, ()) == 3
    assert filling.add(origin(1), [b"x" * PAYLOAD_BYTES_MAX], 0, None, ()) == 0
    assert len(decode_records(encoded(filling))) == 3


def test_origins_are_shared_by_identity() -> None:
    filling = Filling(CLOCK, 0)
    same = origin(1)
    for _ in range(3):
        filling.add(same, [b"a"], 0, None, ())
    filling.add(origin(2), [b"b", b"c"], 7, None, ())
    batch = decode_records(encoded(filling))
    assert batch.origins == [origin(1), origin(2)]
    assert batch.origin_index == [0, 0, 0, 1, 1]
    assert batch.received_delta_ms == [0, 0, 0, 7, 7]


def test_each_priority_has_a_batch_of_its_own() -> None:
    filling = Filling(CLOCK, 0)
    telemetry, alarm, event = (
        origin(n, priority=priority) for n, priority in enumerate((Priority.TELEMETRY, Priority.ALARM, Priority.EVENT))
    )
    for at_ms, (one, payload) in enumerate([(telemetry, b"a"), (alarm, b"b"), (telemetry, b"c"), (event, b"d")]):
        filling.add(one, [payload], at_ms, None, ())
    keys = iter([BatchKey(1, n) for n in range(3)])
    batches = [(part.key.counter, decode_records(part.data)) for part in filling.encode(lambda: next(keys))]
    assert [
        (number, [(row.origin, row.payload, row.received_time) for row in batch.records()]) for number, batch in batches
    ] == [
        (0, [(alarm, b"b", 1)]),
        (1, [(event, b"d", 3)]),
        (2, [(telemetry, b"a", 0), (telemetry, b"c", 2)]),
    ]
    assert [batch.key.counter for _, batch in batches] == [0, 1, 2]


def test_each_waiter_is_owed_its_own_rows() -> None:
    class Connection:
        def recorded(self, owed: Owed) -> None: ...

        def refused(self, owed: Owed, code: str) -> None: ...

    one, two = Connection(), Connection()
    filling = Filling(CLOCK, 0)
    filling.add(origin(1), [b"aa", b"bb"], 0, one, [b"\0\1", b"\0\2"])
    filling.add(origin(2), [b"c"], 0, two, ())
    filling.add(origin(1), [b"ddd"], 0, one, [b"\0\3"])
    assert filling.owed == {one: Owed([b"\0\1", b"\0\2", b"\0\3"], 3, 7), two: Owed([], 1, 1)}
