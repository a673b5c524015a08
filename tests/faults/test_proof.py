"""What a row comes to: each law that is broken is named."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.proof import judge


def proof(**other: Any) -> dict[str, Any]:
    total = {"made": 100, "acknowledged": 100, "stored": 100, "missing": 0, "in_gaps": 0, "doubled": 0}
    alarm = {"name": "alarm", "missing": 0, "in_gaps": other.pop("alarms_in_gaps", 0)}
    waiting = other.pop("on_its_way", 0)
    return {
        "at_rest": not waiting,
        "on_its_way": waiting,
        "total": total | {"faults": []} | other,
        "devices": [alarm, {"name": "other", "missing": 0, "in_gaps": 1}],
    }


def gateway(**other: Any) -> dict[str, Any]:
    log = {"used_bytes": other.pop("used_bytes", 10), "max_bytes": 10}
    totals = {"accepted": 100, "evicted": 0, "damaged": 0}
    return {"closed": other.pop("closed", True), "totals": totals | other, "log": log}


def cloud(**other: Any) -> dict[str, Any]:
    return {"closed": other.pop("closed", True), "total": {"accepted": 100, "evicted": 0, "damaged": 0} | other}


def test_all_is_well() -> None:
    found = judge(proof(), [gateway()], cloud())
    assert (found.holds, found.lost, found.gaps, found.broken) == (True, 0, 0, ())


def test_what_is_missing_may_be_in_gaps_of_both_sides_where_the_fault_is_damage() -> None:
    gone = proof(stored=93, in_gaps=7)
    found = judge(gone, [gateway(evicted=3, damaged=4)], cloud(evicted=3, damaged=4), may_lose=True, exact=True)
    assert (found.holds, found.lost, found.gaps) == (True, 0, 7)


def test_what_went_with_a_store_is_said_and_no_more_than_that() -> None:
    gone = proof(stored=93, missing=7)
    assert judge(gone, [gateway()], cloud(), may_lose=True, unspoken=7).holds
    assert judge(gone, [gateway()], cloud(), may_lose=True, unspoken=6).lost == 1


def test_what_was_not_waited_for_is_not_lost_yet() -> None:
    waiting = proof(stored=93, missing=7, on_its_way=7)
    assert judge(waiting, [gateway()], cloud(), may_wait=True).holds
    assert not judge(waiting, [gateway()], cloud()).holds
    assert judge(proof(missing=8, on_its_way=7), [gateway()], cloud(), may_wait=True).lost == 1


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ("7 acknowledged messages are neither", (proof(missing=7), [gateway()], cloud())),
        ("1 rows are stored too often", (proof(doubled=1), [gateway()], cloud())),
        ("nothing was damaged", (proof(), [gateway(evicted=2)], cloud(evicted=2))),
        ("of 2 records at the gateway, of 1 in the cloud", (proof(), [gateway(evicted=2)], cloud(evicted=1))),
        ("a gateway's accounting does not close", (proof(), [gateway(closed=False)], cloud())),
        ("the cloud's accounting does not close", (proof(), [gateway()], cloud(closed=False))),
        ("counts 100 records as accepted, the cloud 99", (proof(), [gateway()], cloud(accepted=99))),
        ("still on its way", (proof(on_its_way=1), [gateway()], cloud())),
        ("over its cap", (proof(), [gateway(used_bytes=11)], cloud())),
    ],
)
def test_a_broken_law_is_named(words: str, arguments: tuple[Any, Any, Any]) -> None:
    found = judge(*arguments)
    assert not found.holds
    assert any(words in line for line in found.broken), found.broken


def test_gaps_must_be_as_large_as_what_is_missing_where_that_is_known_exactly() -> None:
    found = judge(proof(in_gaps=2), [gateway(damaged=3)], cloud(damaged=3), may_lose=True, exact=True)
    assert found.broken == ("3 records are in gaps, 2 messages are not stored",)
    assert judge(proof(in_gaps=2), [gateway(damaged=3)], cloud(damaged=3), may_lose=True).holds


def test_nothing_of_a_spared_device_may_be_missing() -> None:
    gone = proof(in_gaps=1, alarms_in_gaps=1)
    found = judge(gone, [gateway(evicted=1)], cloud(evicted=1), may_lose=True, spared="alarm")
    assert found.broken == ("messages of alarm are not stored",)


def test_other_logs_than_at_the_beginning_need_not_agree_with_the_cloud() -> None:
    assert judge(proof(), [gateway(accepted=90), gateway(accepted=50)], cloud(), agree=False).holds
