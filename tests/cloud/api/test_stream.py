"""What waits for a client of the live stream."""

from __future__ import annotations

import json

from cloud.api.stream import Mailbox, Wanted, events_of
from protocols.shipment import MessageBatch, Target


async def test_what_comes_is_taken_in_order() -> None:
    mailbox = Mailbox()
    mailbox.put([b"a", b"b"])
    mailbox.put([b"c"])
    assert await mailbox.take(1) == b"abc"
    assert await mailbox.take(0.001) == b""


async def test_what_finds_no_room_is_counted_and_told_once() -> None:
    mailbox = Mailbox(events_max=2)
    mailbox.put([b"a", b"b", b"c", b"d"])
    assert await mailbox.take(1) == b'abevent: missed\ndata: {"missed":2}\n\n'
    mailbox.put([b"e"])
    assert await mailbox.take(1) == b"e"


async def test_bytes_are_bounded_too() -> None:
    mailbox = Mailbox(bytes_max=10)
    mailbox.put([b"123456", b"123456", b"1234"])
    assert await mailbox.take(1) == b'1234561234event: missed\ndata: {"missed":1}\n\n'


def test_events_are_those_of_known_devices_asked_for() -> None:
    targets = [
        Target("demo", "boats", "serial", "bench-01", 1, "pump", "harbour", {}, 1),
        Target("demo", "boats", "serial", "bench-02", 2, "pump", "yard", {}, 1),
        Target("demo", "boats", "serial", "unknown", 0, "", "", {}, 1),
        Target("other", "boats", "serial", "bench-01", 3, "pump", "harbour", {}, 1),
    ]
    batch = MessageBatch(
        runs=[], targets=targets, ids=b"".join(n.to_bytes(16, "big") for n in range(4)), record=[0, 1, 2, 3],
        message_index=[0] * 4, target_index=[0, 1, 2, 3], flags=[0] * 4, time=[None] * 4, received_time=[5] * 4,
        event_time=[4] * 4, data=[b'{"a":\n1}'] * 4, payloads=[b""] * 4, rejects=[],
    )  # fmt: skip
    assert [_device(event) for event in events_of(batch, Wanted("demo"))] == [1, 2]
    assert [_device(event) for event in events_of(batch, Wanted("demo", frozenset({2, 3})))] == [2]
    assert [_device(event) for event in events_of(batch, Wanted("demo", None, frozenset({"yard"})))] == [2]
    (event,) = events_of(batch, Wanted("other"))
    first, second, *rest = event.split(b"\n")
    assert first == b"id: 00000000-0000-0000-0000-000000000003"
    assert json.loads(second.removeprefix(b"data: "))["data"] == {"a": 1}
    assert rest == [b"", b""]


def _device(event: bytes) -> int:
    data: dict[str, int] = json.loads(event.split(b"data: ")[1])
    return data["device_id"]
