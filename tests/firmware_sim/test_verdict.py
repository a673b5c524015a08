"""The arithmetic of the proof: each kind of loss and doubling is found, and what is right is not called wrong."""

from __future__ import annotations

import msgspec
import pytest

from firmware_sim.ledger import ACKNOWLEDGED, DROPPED, SENT, BootTally, LedgerDevice
from firmware_sim.verdict import add_up, judge

KEYED = LedgerDevice("pump-01", "demo", "serial", True, 5)
UNKEYED = LedgerDevice("legacy-01", "old", "serial", False, 5)


def tally(*entries: tuple[int, int]) -> BootTally:
    result = BootTally()
    for kind, seq in entries:
        result.add(kind, seq)
    return result


def delivered(*seqs: int) -> BootTally:
    return tally(*((kind, seq) for seq in seqs for kind in (SENT, ACKNOWLEDGED)))


def test_all_there_is_right() -> None:
    verdict = judge(KEYED, {5: delivered(1, 2, 3)}, [(5, 1), (5, 2), (5, 3)])
    assert verdict.is_right
    assert (verdict.made, verdict.sent, verdict.packets, verdict.acknowledged, verdict.stored) == (3, 3, 3, 3, 3)
    assert verdict.faults == ()


def test_an_acknowledged_message_that_is_not_stored_is_missing_and_named() -> None:
    verdict = judge(KEYED, {5: delivered(1, 2, 3)}, [(5, 1), (5, 3)])
    assert not verdict.is_right
    assert verdict.missing == 1
    assert verdict.faults == ("pump-01 boot 5 seq 2: acknowledged, and not stored",)


def test_a_boot_of_which_nothing_is_stored_is_missing_as_a_whole() -> None:
    verdict = judge(KEYED, {5: delivered(1), 6: delivered(1, 2)}, [(5, 1)])
    assert verdict.missing == 2


def test_with_a_message_key_a_second_row_is_a_doubling_even_if_it_was_sent_twice() -> None:
    tallies = {5: tally((SENT, 1), (SENT, 1), (ACKNOWLEDGED, 1))}
    assert judge(KEYED, tallies, [(5, 1)]).is_right
    verdict = judge(KEYED, tallies, [(5, 1), (5, 1)])
    assert verdict.doubled == 1
    assert verdict.faults == ("pump-01 boot 5 seq 1: stored 2 times, sent 2 times",)


def test_without_a_message_key_there_may_be_a_row_for_each_packet_and_no_more() -> None:
    tallies = {5: tally((SENT, 1), (SENT, 1), (ACKNOWLEDGED, 1))}
    assert judge(UNKEYED, tallies, [(5, 1), (5, 1)]).is_right
    verdict = judge(UNKEYED, tallies, [(5, 1), (5, 1), (5, 1)])
    assert verdict.doubled == 1


def test_one_messages_resends_do_not_excuse_anothers_doubling() -> None:
    tallies = {5: tally((SENT, 1), (SENT, 1), (SENT, 2), (ACKNOWLEDGED, 1), (ACKNOWLEDGED, 2))}
    assert judge(UNKEYED, tallies, [(5, 1), (5, 2), (5, 2)]).doubled == 1


def test_an_unacknowledged_message_may_be_stored_or_not() -> None:
    tallies = {5: tally((SENT, 1), (SENT, 2))}
    verdict = judge(KEYED, tallies, [(5, 2)])
    assert verdict.is_right
    assert (verdict.unacknowledged, verdict.stored) == (2, 1)


def test_dropped_and_unsent_messages_are_counted_apart() -> None:
    tallies = {5: tally((DROPPED, 1), (SENT, 2), (DROPPED, 2), (SENT, 4), (ACKNOWLEDGED, 4))}
    verdict = judge(KEYED, tallies, [(5, 4)])
    assert (verdict.made, verdict.dropped, verdict.unsent, verdict.unacknowledged) == (4, 2, 1, 0)
    assert verdict.is_right


@pytest.mark.parametrize(
    "row", [(None, None), (5, None), (5, "1"), (5, True), (6, 1), (5, 0), (5, -1), (5, 10**12), ([5], 1), ({}, 1)]
)
def test_rows_that_are_not_from_the_ledger_prove_nothing(row: tuple[object, object]) -> None:
    verdict = judge(KEYED, {5: delivered(1)}, [row])
    assert verdict.other_rows == 1
    assert verdict.missing == 1


def test_what_the_ledger_no_longer_holds_is_not_called_doubled() -> None:
    assert judge(UNKEYED, {5: tally((ACKNOWLEDGED, 1))}, [(5, 1), (5, 1)]).is_right


def test_of_many_faults_the_first_few_are_named_and_all_are_counted() -> None:
    verdict = judge(KEYED, {5: delivered(*range(1, 101))}, [])
    assert verdict.missing == 100
    assert len(verdict.faults) == 5
    assert "seq 1:" in verdict.faults[0]


def test_verdicts_add_up() -> None:
    good = judge(KEYED, {5: delivered(1, 2)}, [(5, 1), (5, 2)])
    bad = judge(UNKEYED, {5: delivered(1)}, [])
    total = add_up("all", "", [good, bad])
    assert (total.acknowledged, total.stored, total.missing, total.is_right) == (3, 2, 1, False)
    assert total.faults == bad.faults


def test_what_nobody_acknowledges_is_counted_apart_and_still_never_doubled() -> None:
    polled = msgspec.structs.replace(KEYED, is_answered=False)
    tallies = {5: tally((SENT, 1), (SENT, 1), (SENT, 2), (DROPPED, 3))}
    verdict = judge(polled, tallies, [(5, 1)])
    assert verdict.is_right
    assert (verdict.unpromised, verdict.unpromised_stored, verdict.unacknowledged) == (2, 1, 0)
    assert judge(polled, tallies, [(5, 1), (5, 1)]).doubled == 1
    on_a_plain_network = msgspec.structs.replace(UNKEYED, is_answered=False)
    assert judge(on_a_plain_network, tallies, [(5, 1), (5, 1), (5, 2)]).is_right
    assert judge(on_a_plain_network, tallies, [(5, 2), (5, 2)]).doubled == 1
