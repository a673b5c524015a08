from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from edge.listeners.refusals import Refused
from edge.status.tail import CLIENTS_MAX, DATA_BYTES_MAX, EVENTS_MAX, Tail, TailClient, TailFilter
from protocols.shipment import MessageBatch
from tests.edge.status.messages import resolved

MIXED = resolved(("pump", b'{"n":1}'), ("stranger", b'{"n":2}'), ("pump", b'{"n":'), ("stranger", b"x"))


def client(tail: Tail, device: str = "", *, listener: str = "", rejected_only: bool = False) -> TailClient:
    opened = tail.open(TailFilter(device, listener, rejected_only))
    assert opened is not None
    return opened


async def events(of: TailClient) -> tuple[list[dict[str, Any]], int]:
    async with asyncio.timeout(5):
        found, missed = await of.next()
    return [msgspec.json.decode(event) for event in found], missed


def short(found: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(event["kind"], event["alias"]) for event in found]


async def test_messages_unknown_ones_and_rejects_come_in_order() -> None:
    tail = Tail()
    one = client(tail)
    tail.offer(*MIXED)
    found, missed = await events(one)
    assert missed == 0
    assert short(found) == [
        ("message", "pump"),
        ("message", "stranger"),
        ("rejected", "pump"),
        ("rejected", "stranger"),
    ]
    assert (found[0]["device_id"], found[0]["data"], found[1]["device_id"]) == (1, {"n": 1}, 0)
    assert found[2]["payload"]["text"] == '{"n":'


@pytest.mark.parametrize("name", ["pump", "serial:pump", "quay:serial:pump"])
async def test_a_device_is_followed_by_any_of_its_names(name: str) -> None:
    tail = Tail()
    one = client(tail, name)
    tail.offer(*MIXED)
    assert short((await events(one))[0]) == [("message", "pump"), ("rejected", "pump")]


async def test_a_device_is_followed_by_its_number() -> None:
    tail = Tail()
    one = client(tail, "1")
    tail.offer(*MIXED)
    assert short((await events(one))[0]) == [("message", "pump")]


async def test_a_listener_is_followed_with_all_that_it_took_and_refused() -> None:
    tail = Tail()
    one = client(tail, listener="coap")
    tail.offer(*MIXED)
    tail.offer(*resolved(("pump", b'{"n":3}'), ("pump", b"x"), listener="coap"))
    for listener in ("mqtt", "coap"):
        tail.offer_refused(listener, "quay", Refused(5, "unknown_user", "no", "10.0.0.1:9", "stranger", b"\x10"))
    found, _ = await events(one)
    assert [(event["kind"], event["listener"]) for event in found] == [
        ("message", "coap"),
        ("rejected", "coap"),
        ("refused", "coap"),
    ]


async def test_only_what_was_turned_away() -> None:
    tail = Tail()
    one = client(tail, rejected_only=True)
    tail.offer(*MIXED)
    tail.offer_refused("mqtt", "quay", Refused(5, "wrong_password", "no", "10.0.0.1:9", "pump", b"\x10"))
    found, _ = await events(one)
    assert [event["kind"] for event in found] == ["rejected", "rejected", "refused"]
    assert (found[2]["user_name"], found[2]["payload"]["hex"]) == ("pump", "10")


async def test_a_slow_client_is_told_what_it_missed_and_gets_the_newest() -> None:
    tail = Tail()
    one = client(tail)
    for number in range(4):
        tail.offer(*flood(EVENTS_MAX // 2 + 10, number))
    found, missed = await events(one)
    assert len(found) == EVENTS_MAX
    assert missed == 4 * (EVENTS_MAX // 2 + 10) - EVENTS_MAX
    assert found[-1]["data"] == {"n": EVENTS_MAX // 2 + 9, "batch": 3}


async def test_of_a_huge_batch_only_the_end_is_made_into_events() -> None:
    tail = Tail()
    one = client(tail)
    tail.offer(*flood(3 * EVENTS_MAX, 0))
    found, missed = await events(one)
    assert (len(found), missed) == (EVENTS_MAX, 2 * EVENTS_MAX)


def flood(rows: int, number: int) -> MessageBatch:
    return resolved(*(("pump", b'{"n":%d,"batch":%d}' % (row, number)) for row in range(rows)))


async def test_large_attributes_are_left_out_with_their_size() -> None:
    tail = Tail()
    one = client(tail)
    tail.offer(*resolved(("pump", msgspec.json.encode({"text": "x" * DATA_BYTES_MAX}))))
    (event,), _ = await events(one)
    assert event["data"] is None
    assert event["size"] > DATA_BYTES_MAX


async def test_as_many_look_on_as_allowed_and_a_place_becomes_free() -> None:
    tail = Tail()
    clients = [client(tail) for _ in range(CLIENTS_MAX)]
    assert tail.open(TailFilter()) is None
    tail.leave(clients[0])
    client(tail)


async def test_closing_ends_those_who_wait() -> None:
    tail = Tail()
    one = client(tail)
    waiting = asyncio.create_task(one.next())
    await asyncio.sleep(0)
    tail.close()
    async with asyncio.timeout(5):
        assert await waiting == ([], 0)
    assert one.is_closed
    assert tail.open(TailFilter()) is None
