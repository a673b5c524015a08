"""The resend buffer: nothing leaves it unacknowledged, in order, within its bounds."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from firmware_sim.devices.outbox import PACKET_ID_MAX, Outbox, Outgoing


def message(seq: int) -> Outgoing:
    return Outgoing(1, seq, b"{}", 0.0)


def filled(count: int, *, messages_max: int = 10, window: int = 3) -> Outbox:
    outbox = Outbox(messages_max=messages_max, window=window)
    for seq in range(1, count + 1):
        outbox.add(message(seq))
    return outbox


def test_no_more_than_the_window_is_in_flight() -> None:
    outbox = filled(5)
    assert [one.seq for one in outbox.take()] == [1, 2, 3]
    assert outbox.take() == []
    done = outbox.acknowledge(2)
    assert done is not None
    assert done.seq == 2
    assert [one.seq for one in outbox.take()] == [4]


def test_what_was_in_flight_goes_again_first_in_order_under_its_old_packet_id() -> None:
    outbox = filled(5)
    first = {one.seq: one.packet_id for one in outbox.take()}
    outbox.acknowledge(first[2])
    outbox.rewind()
    again = outbox.take()
    assert [(one.seq, one.packet_id, one.sends) for one in again[:2]] == [(1, first[1], 2), (3, first[3], 2)]
    assert (again[2].seq, again[2].sends) == (4, 1)
    assert again[2].packet_id not in (first[1], first[3])


def test_a_full_buffer_drops_the_oldest_that_waits_and_never_what_is_in_flight() -> None:
    outbox = filled(10)
    outbox.take()
    dropped = outbox.add(message(11))
    assert dropped is not None
    assert dropped.seq == 4
    assert len(outbox) == 10
    assert outbox.acknowledge(1) is not None


def test_a_late_answer_for_a_dropped_message_means_nothing() -> None:
    outbox = filled(10, messages_max=10, window=2)
    outbox.take()
    outbox.rewind()
    assert outbox.add(message(11)) is not None
    assert outbox.acknowledge(1) is None


def test_losing_power_loses_everything_and_says_what() -> None:
    outbox = filled(5)
    outbox.take()
    assert sorted(one.seq for one in outbox.clear()) == [1, 2, 3, 4, 5]
    assert len(outbox) == 0
    assert outbox.take() == []


def test_packet_ids_start_again_after_the_last_and_skip_those_in_use() -> None:
    outbox = Outbox(messages_max=10, window=2)
    outbox.add(message(0))
    stuck = outbox.take()[0].packet_id
    seen = set()
    for seq in range(1, 70_000):
        outbox.add(message(seq))
        (one,) = outbox.take()
        assert 1 <= one.packet_id <= PACKET_ID_MAX
        assert one.packet_id != stuck
        seen.add(one.packet_id)
        outbox.acknowledge(one.packet_id)
    assert len(seen) == PACKET_ID_MAX - 1


@pytest.mark.parametrize(("messages_max", "window"), [(10, 0), (10, 10), (100_000, 70_000)])
def test_bounds_that_make_no_sense_are_refused(messages_max: int, window: int) -> None:
    with pytest.raises(ValueError, match="window"):
        Outbox(messages_max=messages_max, window=window)


class OutboxMachine(RuleBasedStateMachine):
    """Against the plainest model: every message is added, and then either acknowledged, dropped or still held."""

    def __init__(self) -> None:
        super().__init__()
        self.outbox = Outbox(messages_max=6, window=3)
        self.seq = 0
        self.held: set[int] = set()
        self.in_flight: deque[Outgoing] = deque()

    @rule()
    def add(self) -> None:
        self.seq += 1
        dropped = self.outbox.add(message(self.seq))
        self.held.add(self.seq)
        if dropped is not None:
            assert dropped not in self.in_flight
            self.held.remove(dropped.seq)

    @rule()
    def take(self) -> None:
        taken = self.outbox.take()
        assert [one.seq for one in taken] == sorted(one.seq for one in taken)
        self.in_flight += taken

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(list(self.in_flight)))
        assert self.outbox.acknowledge(one.packet_id) is one
        self.in_flight.remove(one)
        self.held.remove(one.seq)

    @rule()
    def rewind(self) -> None:
        self.outbox.rewind()
        self.in_flight.clear()

    @invariant()
    def is_bounded_and_complete(self) -> None:
        assert len(self.outbox) == len(self.held) <= 6
        assert self.outbox.in_flight == len(self.in_flight) <= 3
        ids = [one.packet_id for one in self.in_flight]
        assert len(ids) == len(set(ids))


OutboxMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestOutbox = OutboxMachine.TestCase
