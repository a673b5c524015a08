"""Where a message is: from each state's facts the right place, with what to do next."""

from __future__ import annotations

import datetime
import uuid
from typing import Any

import msgspec
import pytest

from cloud.model.standing import GatewayStanding
from cloud.model.traces import Dead, DeviceFacts, KeyedFacts, RecordFacts, Rejected, Row, Source, Waiting
from cloud.model.where import STATES, Place, asked_id, of_device, of_key, of_record
from protocols.ids import KeySpace, RecordName, record_message_id
from protocols.messages import DEFAULT_ROUTE, Gap, GapKind
from protocols.shipment import KEYED, LATE
from sync.link.frames import RefusedSample, Span, Standing
from sync.link.limits import SPANS_MAX

NOW = 1_770_000_000_000
EPOCH = 0x5F1C8A526F5E4C8B
NAME = RecordName(EPOCH, 500, 0)
GATEWAY = Source("p", "gateway", "quay-1")
REST = Source("p", "rest", None)
ROW = Row(17, record_message_id(EPOCH, 500), None, NOW - 5, NOW - 5, NOW, LATE, None)
ALIAS = ("boats", "serial", "b-1")
WAITING = Waiting(*ALIAS, record_message_id(EPOCH, 500), NOW - 5, NOW, False, None)
REJECTED = Rejected(9, *ALIAS, "undecodable", "not JSON", NOW)
DEAD = Dead(3, "transponder", "ValueError: no", NOW)
EVICTED = Gap(EPOCH, 400, 600, GapKind.EVICTED, NOW - 50, NOW + 50, NOW + 900)
DAMAGED = msgspec.structs.replace(EVICTED, kind=GapKind.DAMAGED)
TAIL = Gap(EPOCH, 450, 450, GapKind.TAIL, 0, 0, NOW + 900, 512)


def stands(
    pending: tuple[Span, ...] = (), in_flight: tuple[Span, ...] = (), end: int = 1000, complete_until: int | None = None
) -> GatewayStanding:
    sample = RefusedSample(NOW - 100, "boats", "b-1", "limit")
    standing = Standing(NOW, NOW - 9000, ((EPOCH, end),), pending, in_flight, (("limit", 1),), (sample,))
    at = datetime.datetime.fromtimestamp(NOW / 1000 + 1, datetime.UTC)
    return GatewayStanding("p", "quay-1", standing, at, complete_until)


def record(**known: Any) -> Place:
    """The only place of a record of a gateway, of which that is known."""
    (place,) = of_record(RecordFacts(name=NAME, **({"source": GATEWAY} | known)))
    assert place.state in STATES
    assert place.next, "each state says what to do or what happens next"
    return place


def device(**known: Any) -> list[Place]:
    facts = {"device_id": 17, "route": DEFAULT_ROUTE} | known
    return of_device(DeviceFacts(name=ALIAS, time_ms=NOW, **facts))


THROUGH = {"received": True, "processed": True, "written": True}
HERE = (Span(EPOCH, 400, 600),)
ELSEWHERE = (Span(EPOCH, 700, 900),)


@pytest.mark.parametrize(
    ("state", "known"),
    [
        ("log", {"gateway": stands(HERE)}),
        ("log", {"gateway": stands(HERE, ELSEWHERE)}),
        ("in-flight", {"gateway": stands(HERE, HERE)}),
        ("missing", {"gateway": stands(ELSEWHERE)}),
        ("unknown", {"gateway": stands(end=500)}),
        ("unknown", {"gateway": None}),
        ("unknown", {"source": None}),
        ("stream", {"received": True, "gateway": stands(HERE, HERE)}),
        ("stream", {"received": True, "processed": True}),
        ("stream", {"processed": True}),
        ("inbox", THROUGH | {"waiting": [WAITING]}),
        ("replay", THROUGH | {"waiting": [msgspec.structs.replace(WAITING, numbered=True, device_id=17)]}),
        ("replay", THROUGH | {"waiting": [msgspec.structs.replace(WAITING, device_id=17)]}),
        ("replay", THROUGH | {"replayed": 5, "fates": {"stopped": 3}}),
        ("stopped", THROUGH | {"fates": {"stopped": 3, "repeated": 0}}),
        ("repeated", THROUGH | {"fates": {"stopped": 0, "repeated": 3}}),
        ("nothing", THROUGH | {"fates": {"stopped": 0, "repeated": 0}}),
        ("rejected", THROUGH | {"rejected": [REJECTED]}),
        ("dead", THROUGH | {"dead": [DEAD]}),
        ("stored", THROUGH | {"rows": [ROW]}),
        ("evicted", {"gap": EVICTED, "gateway": stands(ELSEWHERE)}),
        ("damaged", {"gap": DAMAGED, "gateway": stands()}),
        ("damaged", {"gap": TAIL, "gateway": stands(ELSEWHERE)}),
        ("log", {"gap": TAIL, "gateway": stands(HERE)}),
        ("stream", {"source": REST, "received": True}),
        ("unknown", {"source": REST}),
    ],
)
def test_a_record_is_where_its_facts_say(state: str, known: dict[str, Any]) -> None:
    assert record(**known).state == state


def test_what_is_not_certain_is_said_to_be() -> None:
    both = record(**THROUGH, fates={"stopped": 1, "repeated": 1})
    assert not both.certain
    assert "route leads nowhere" in both.text
    assert "had brought the same message" in both.text
    assert not record(gap=TAIL, gateway=stands(ELSEWHERE)).certain
    assert record(gap=EVICTED).certain


def test_the_hop_that_a_record_waits_for_is_named() -> None:
    assert record(received=True).facts["hop"] == "processor"
    assert record(received=True, processed=True).facts["hop"] == "transponder"


def test_a_list_of_pending_records_that_was_cut_off_hides_the_oldest() -> None:
    many = tuple(Span(EPOCH, 600 + 2 * place, 601 + 2 * place) for place in range(SPANS_MAX))
    assert record(gateway=stands(many, end=10_000)).state == "log"
    assert record(gateway=stands(many[1:], end=10_000)).state == "missing"


def test_each_message_of_a_record_has_its_place() -> None:
    other = msgspec.structs.replace(WAITING, id=record_message_id(EPOCH, 500, 1))
    places = of_record(RecordFacts(name=NAME, source=GATEWAY, rows=[ROW], waiting=[other], **THROUGH))
    assert [place.state for place in places] == ["stored", "inbox"]


def test_since_when_and_what_next() -> None:
    assert record(gateway=stands(HERE)).since_time == NOW + 1000
    assert record(**THROUGH, waiting=[WAITING]).since_time == NOW
    assert record(gap=EVICTED).since_time == NOW + 900
    inbox = record(**THROUGH, waiting=[WAITING])
    assert "no device has the alias boats:serial:b-1" in inbox.text
    assert "create the device" in inbox.next
    stored = record(**THROUGH, rows=[ROW])
    assert (stored.facts["device"], stored.facts["late"], stored.facts["record"]) == (17, True, f"{EPOCH:016x}/500")


def test_a_message_with_a_key() -> None:
    row = msgspec.structs.replace(ROW, id=KeySpace("p", *ALIAS).message_id((1, 5)), record=ROW.id, flags=KEYED)
    (place,) = of_key(KeyedFacts(rows=[row], taken_ms=row.event_time))
    assert (place.state, place.facts["record"]) == ("stored", f"{EPOCH:016x}/500")
    assert [place.state for place in of_key(KeyedFacts(waiting=[WAITING]))] == ["inbox"]
    assert [place.state for place in of_key(KeyedFacts(taken_ms=NOW))] == ["unknown"]
    assert "ask by device and time" in of_key(KeyedFacts())[0].next


def test_a_device_and_a_time_find_what_is_certain() -> None:
    near = msgspec.structs.replace(ROW, event_time=NOW - 400, time=NOW - 400, received_time=NOW - 300)
    assert [place.facts["event_time"] for place in device(rows=[near, ROW])] == [ROW.event_time], "just that time"
    assert [place.state for place in device(rows=[near])] == ["stored"]
    found = device(waiting=[WAITING], rejected=[REJECTED], refused=[("quay-1", stands().standing.refused_samples[0])])
    assert [place.state for place in found] == ["inbox", "rejected", "refused"]
    assert all(place.certain for place in found)


def test_a_device_and_a_time_tell_where_it_may_be() -> None:
    found = device(
        route={"device_data_event": []},
        gaps=[("quay-1", EVICTED)],
        gateways=[stands(HERE, complete_until=NOW - 1)],
        in_pipeline=7,
    )
    assert [place.state for place in found] == ["stopped", "evicted", "log", "stream", "unknown"]
    assert not any(place.certain for place in found)
    assert [place.state for place in device(gateways=[stands(HERE, complete_until=NOW + 1)])] == ["unknown"]
    (nowhere,) = device(device_id=None, gateways=[stands(complete_until=NOW + 1)])
    assert nowhere.facts == {"complete_until": {"quay-1": NOW + 1}}
    assert "which no device is called" in nowhere.text
    assert nowhere.next.startswith("check the name")
    (mistyped,) = device(device_id=None, network_known=False, in_pipeline=7)
    assert (mistyped.state, mistyped.certain) == ("unknown", True)
    assert ALIAS[0] in mistyped.text


def test_ids_are_read_as_they_are_shown() -> None:
    assert asked_id(str(uuid.UUID(bytes=record_message_id(EPOCH, 500, 3)))) == RecordName(EPOCH, 500, 3)
    assert asked_id(f"{EPOCH:016x}/500") == NAME
    key = KeySpace("p", *ALIAS).message_id((1, 5))
    assert asked_id(str(uuid.UUID(bytes=key))) == key
    for wrong in ("", "5", "x/1", "1/x", f"{2**63:x}/1", f"1/{2**40}", "5f1c8a52-6f5e", "1/-1"):
        with pytest.raises(ValueError):
            asked_id(wrong)
