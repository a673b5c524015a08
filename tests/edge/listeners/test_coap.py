"""The CoAP listener, byte by byte: what is recorded, when it is answered, and with what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from edge.listeners.coap.limits import EXCHANGES_PER_ENDPOINT_MAX
from edge.listeners.coap.listener import CoapListener
from edge.listeners.way import DeviceAbsentError, DeviceGoneError
from protocols.coap.message import Block, Message, uint
from protocols.coap.numbers import Code, Kind, Option, code_text
from protocols.limits import PAYLOAD_BYTES_MAX
from protocols.messages import Command, Priority
from sync.bus.contract import BusRefusedError
from sync.registry import RegistryChange
from tests.edge.listeners.coap_world import Client, World
from tests.edge.listeners.mqtt_world import ANSWER_S, until

UP = "sensors/pump/up"
DOWN = "sensors/pump/down"
PAYLOAD = b'{"temperature":71.5}'


@pytest.fixture
async def world() -> World:
    return World()


@pytest.fixture
async def listener(world: World) -> AsyncIterator[CoapListener]:
    async with world.listening() as made:
        yield made


@pytest.fixture
async def client(listener: CoapListener) -> AsyncIterator[Client]:
    async with Client.to(listener.port) as made:
        yield made


def command(name: str = "set", payload: bytes = b'{"speed":3}', id: str = "c1") -> Command:
    return Command(id, 1, name, payload, 0)


# What is recorded


@pytest.mark.parametrize("code", [Code.POST, Code.PUT])
async def test_a_message_is_answered_when_its_record_is_safe(world: World, client: Client, code: int) -> None:
    world.bus.hold()
    client.send(client.message(UP, PAYLOAD, code=code, options=((Option.CONTENT_FORMAT, uint(60)),)))
    await world.bus.reached(1)
    assert client.is_quiet
    world.bus.release()
    answer = await client.next()
    assert (answer.kind, answer.code, answer.payload) == (Kind.ACKNOWLEDGEMENT, Code.CHANGED, b"")
    (record,) = world.bus.records
    assert record.payload == PAYLOAD
    origin = record.origin
    assert (origin.alias_key, origin.alias, origin.topic, origin.codec) == ("serial", "pump", UP, "cbor")
    assert (origin.network_id, origin.listener, origin.priority) == ("quay", "coap", Priority.TELEMETRY)


async def test_a_non_confirmable_message_is_recorded_and_answered_alike(world: World, client: Client) -> None:
    answer = await client.posts("pump", PAYLOAD, kind=Kind.NON_CONFIRMABLE)
    assert (answer.kind, answer.code) == (Kind.NON_CONFIRMABLE, Code.CHANGED)
    assert [record.payload for record in world.bus.records] == [PAYLOAD]


async def test_a_retransmission_is_one_record_and_the_same_answer(world: World, client: Client) -> None:
    world.bus.hold()
    message = client.message(UP, PAYLOAD)
    client.send(message)
    await world.bus.reached(1)
    client.send(message)
    client.send(b"\x40\x00\x00\x63")  # a ping, whose answer comes after the retransmission was read
    assert await client.next_bytes() == b"\x70\x00\x00\x63"
    world.bus.release()
    first = await client.next_bytes()
    client.send(message)
    assert await client.next_bytes() == first
    assert len(world.bus.records) == 1


async def test_a_device_that_counts_from_the_start_again_says_something_new(world: World, client: Client) -> None:
    for payload in (b"before the reboot", b"after it"):
        await client.posts(UP, payload, message_id=1)
    assert [record.payload for record in world.bus.records] == [b"before the reboot", b"after it"]


async def test_what_was_not_recorded_is_looked_at_anew_if_it_comes_again(world: World, client: Client) -> None:
    world.bus.failures.append(BusRefusedError("log-full", "2 GB of 2 GB"))
    message = client.message(UP, PAYLOAD)
    answers = [await client.asks(message) for _ in range(3)]
    assert [answer.code for answer in answers] == [Code.UNAVAILABLE, Code.CHANGED, Code.CHANGED]
    assert world.collector.counters.recorded == 1


async def test_what_is_remembered_of_an_endpoint_is_bounded(world: World, listener: CoapListener) -> None:
    async with Client.to(listener.port) as client:
        asked = [client.message(UP, b"%d" % number) for number in range(EXCHANGES_PER_ENDPOINT_MAX + 1)]
        for message in asked:
            client.send(message)
            await client.next_bytes()
        await client.asks(asked[-1])
        assert len(world.bus.records) == len(asked), "the newest is remembered"
        await client.asks(asked[0])
        assert len(world.bus.records) == len(asked) + 1, "the oldest is not, and not lost either"


async def test_without_a_wish_for_an_answer_there_is_an_acknowledgement_only(world: World, client: Client) -> None:
    quiet = ((Option.NO_RESPONSE, uint(2)),)
    client.send(client.message(UP, PAYLOAD, kind=Kind.NON_CONFIRMABLE, options=quiet))
    answer = await client.asks(client.message(UP, PAYLOAD, options=quiet))
    assert (answer.kind, answer.code, answer.token) == (Kind.ACKNOWLEDGEMENT, Code.EMPTY, b"")
    assert len(world.bus.records) == 2
    assert client.is_quiet


async def test_priorities_and_a_codec_of_the_listener(world: World) -> None:
    from edge.listeners.config import PriorityConfig

    rules = (PriorityConfig(("sensors/+/up",), "alarm"),)
    async with world.listening(codec="csv", priorities=rules) as listener, Client.to(listener.port) as client:
        await client.posts(UP, b"1", options=((Option.CONTENT_FORMAT, uint(12_345)),))
    (record,) = world.bus.records
    assert (record.origin.codec, record.origin.priority) == ("csv", Priority.ALARM)


@pytest.mark.parametrize("host", ["::1", "::"])
async def test_ipv6_and_both(world: World, host: str) -> None:
    async with world.listening(host=host) as listener:
        async with Client.to(listener.port, "::1") as client:
            assert (await client.posts(UP, PAYLOAD)).code == Code.CHANGED
        if host == "::":
            async with Client.to(listener.port) as client:
                await client.posts(UP, PAYLOAD, query="key=wrong")
            assert listener.refusals.last[-1].peer.startswith("127.0.0.1:")


async def test_an_answer_comes_from_the_address_that_was_asked(world: World) -> None:
    async with world.listening(host="0.0.0.0") as listener, Client.to(listener.port, "127.0.0.9") as client:
        assert (await client.posts(UP, PAYLOAD)).code == Code.CHANGED


# Who may speak


@pytest.mark.parametrize(
    ("path", "query", "name"),
    [
        ("sensors/pump/up", "key=pump-secret", "pump"),
        ("pump", "key=pump-secret", "pump"),
        ("new", "key=network", "new"),
        ("data", "key=pump:pump-secret", "pump"),
        ("data", "key=serial:pump:pump-secret", "pump"),
    ],
)
async def test_who_is_let_in(world: World, path: str, query: str, name: str) -> None:
    templates = ("data", "sensors/{serial}/up", "{serial}")
    async with world.listening(templates=templates) as listener, Client.to(listener.port) as client:
        assert (await client.posts(path, PAYLOAD, query=query)).code == Code.CHANGED
    (record,) = world.bus.records
    assert (record.origin.alias_key, record.origin.alias) == ("serial", name)


@pytest.mark.parametrize("query", ["", "key=wrong", "key=", "key=network"])
async def test_who_is_not(world: World, listener: CoapListener, client: Client, query: str) -> None:
    answer = await client.posts("pump", PAYLOAD, query=query)
    assert answer.code == Code.UNAUTHORIZED
    assert answer.payload
    assert listener.counters.auth_failures == 1
    assert PAYLOAD in listener.refusals.last[-1].data
    assert world.bus.records == []


async def test_an_open_listener_believes_the_path(world: World) -> None:
    templates = ("data", "{esn}")
    async with world.listening(templates=templates, open=True) as listener, Client.to(listener.port) as client:
        for path in ("551", "data"):
            assert (await client.posts(path, PAYLOAD, query="")).code == Code.CHANGED
        assert (await client.posts("down", code=Code.GET, query="")).code == Code.METHOD_NOT_ALLOWED
        assert (await client.posts("data/down", code=Code.GET, query="")).code == Code.NOT_FOUND
    origins = [record.origin for record in world.bus.records]
    assert [(origin.alias_key, origin.alias) for origin in origins] == [("esn", "551"), ("serial", "")]


async def test_guesses_are_counted(client: Client) -> None:
    codes = [(await client.posts("pump", PAYLOAD, query="key=guess")).code for _ in range(6)]
    assert codes == 5 * [Code.UNAUTHORIZED] + [Code.TOO_MANY_REQUESTS]


async def test_without_a_registry_a_device_is_told_to_come_again(world: World, client: Client) -> None:
    world.registry.apply(RegistryChange("demo", 1, 2, gone_networks=("quay",)))
    answer = await client.posts("pump", PAYLOAD)
    assert (answer.code, answer.number(Option.MAX_AGE)) == (Code.UNAVAILABLE, 5)


# Bad input


@pytest.mark.parametrize(
    ("how", "code", "text"),
    [
        ({"path": "a/b/c"}, "4.04", "/a/b/c fits none of /sensors/{serial}/up, /{serial}"),
        ({"path": "pump", "code": Code.GET}, "4.05", "method 0.01 is not for this path; use POST or PUT"),
        ({"path": "pump", "code": 31}, "4.05", "method 0.31"),
        ({"path": "pump", "payload": b""}, "4.00", "without a payload"),
        ({"path": "pump", "options": ((Option.CONTENT_FORMAT, uint(11_111)),)}, "4.15", "content format 11111"),
        ({"path": "pump", "options": ((Option.PROXY_SCHEME, b"coap"),)}, "5.05", "no proxy"),
        ({"path": "pump", "options": ((9001, b"x"),)}, "4.02", "option 9001 is not known"),
        ({"path": "pump", "options": ((Option.URI_PATH, b"\xff"),)}, "4.00", "URI_PATH is not UTF-8"),
        ({"path": "pump", "block": Block(3, True, 6)}, "4.00", "20 bytes in a block of 1024"),
        ({"path": "pump", "block": Block(3, False, 6)}, "4.08", "begin with the first"),
        ({"path": "pump/down", "code": Code.GET, "options": ((Option.ACCEPT, uint(60)),)}, "4.06", "no other form"),
        ({"path": ".well-known/core", "code": Code.GET, "options": ((Option.ACCEPT, uint(60)),)}, "4.06", "no other"),
        ({"path": 600 * "x"}, "4.02", "URI_PATH of 600 bytes"),
        ({"path": "/".join(3 * [200 * "x"])}, "4.04", "fits none of"),
    ],
)
async def test_each_mistake_has_its_answer(
    world: World, listener: CoapListener, client: Client, how: dict[str, Any], code: str, text: str
) -> None:
    how = {"payload": PAYLOAD} | how
    answer = await client.posts(how.pop("path"), how.pop("payload"), **how)
    assert code_text(answer.code) == code
    assert text in answer.payload.decode()
    assert world.bus.records == []
    assert sum(listener.refusals.counts.values()) == sum(listener.counters.refused.values()) == 1
    assert text in listener.refusals.last[-1].detail


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"\x40\x02\x12\x34\xff", b"\x70\x00\x12\x34"),
        (b"\x49\x02\x12\x34" + 9 * b"t", None),
        (b"\x50\x02\x12\x34\xff", None),
        (b"GET / HTTP/1.1\r\n\r\n", None),
        (b"\x40", None),
    ],
)
async def test_what_is_no_message_is_counted(
    listener: CoapListener, client: Client, data: bytes, answer: bytes
) -> None:
    client.send(data)
    if answer is not None:
        assert await client.next_bytes() == answer
    await until(lambda: listener.counters.malformed == 1)
    assert client.is_quiet
    assert listener.refusals.last[-1].data == data[:12]


async def test_a_ping_and_an_answer_that_nobody_asked_for_are_reset(client: Client) -> None:
    for data in (b"\x40\x00\x00\x07", b"\x40\x45\x00\x07"):
        client.send(data)
        assert await client.next_bytes() == b"\x70\x00\x00\x07"


async def test_a_datagram_that_is_too_long_is_asked_for_in_blocks(client: Client) -> None:
    answer = await client.posts("pump", bytes(5000))
    assert (answer.code, answer.number(Option.SIZE1)) == (Code.TOO_LARGE, PAYLOAD_BYTES_MAX)
    assert b"in blocks" in answer.payload


async def test_who_sends_too_much_is_told_and_others_go_on(world: World) -> None:
    async with (
        world.listening(host="::", rate_max=20) as listener,
        Client.to(listener.port) as flood,
        Client.to(listener.port, "::1") as neighbour,
    ):
        for number in range(200):
            flood.send(flood.message("pump", b"%d" % number))
        assert (await neighbour.posts("pump", PAYLOAD)).code == Code.CHANGED
        await until(lambda: listener.counters.bytes_in > 200 * 30)
        codes = []
        while not flood.is_quiet:
            codes.append((await flood.next()).code)
        assert listener.counters.refused["too_frequent"] == listener.refusals.counts["too_frequent"] >= 170
        assert codes.count(Code.TOO_MANY_REQUESTS) <= 11, "the answers to a flood are none"
        assert 20 <= codes.count(Code.CHANGED) <= 30


# The disk


async def test_what_the_log_does_not_take_is_not_promised(world: World, listener: CoapListener, client: Client) -> None:
    world.bus.failures.append(BusRefusedError("log-full", "2 GB of 2 GB"))
    answer = await client.posts(UP, PAYLOAD)
    assert (answer.code, answer.number(Option.MAX_AGE)) == (Code.UNAVAILABLE, 5)
    assert b"log-full" in answer.payload
    assert listener.counters.refused == {"log-full": 1}
    assert (await client.posts(UP, PAYLOAD)).code == Code.CHANGED


@pytest.mark.parametrize("kind", [Kind.CONFIRMABLE, Kind.NON_CONFIRMABLE])
async def test_what_comes_while_too_much_waits_is_turned_away(
    world: World, listener: CoapListener, client: Client, kind: int
) -> None:
    world.collector.paused = True
    assert (await client.posts(UP, PAYLOAD, kind=kind)).code == Code.UNAVAILABLE
    assert world.collector.counters.refused == listener.counters.refused == {"paused": 1}


async def test_at_the_end_what_came_is_answered(world: World) -> None:
    world.bus.hold()
    async with world.listening() as listener, Client.to(listener.port) as client:
        client.send(client.message(UP, PAYLOAD))
        await world.bus.reached(1)
        closing = asyncio.create_task(listener.close())
        await asyncio.sleep(0)
        world.bus.release()
        assert (await client.next()).code == Code.CHANGED
        await closing


# Blocks


async def test_a_body_in_blocks_is_one_record(world: World, client: Client) -> None:
    body = bytes(range(256)) * 10
    for number in range(40):
        part = body[number * 64 : number * 64 + 64]
        answer = await client.posts(UP, part, block=Block(number, number < 39, 2))
        assert answer.code == (Code.CONTINUE if number < 39 else Code.CHANGED)
        assert answer.block(Option.BLOCK1) == Block(number, number < 39, 2)
    assert [record.payload for record in world.bus.records] == [body]


async def test_a_body_that_is_too_large_is_refused_at_its_first_block(client: Client) -> None:
    size = ((Option.SIZE1, uint(PAYLOAD_BYTES_MAX + 1)),)
    answer = await client.posts(UP, bytes(1024), block=Block(0, True, 6), options=size)
    assert (answer.code, answer.number(Option.SIZE1)) == (Code.TOO_LARGE, PAYLOAD_BYTES_MAX)


async def test_a_body_that_grows_too_large_is_refused(world: World) -> None:
    async with world.listening(rate_max=0) as listener, Client.to(listener.port) as client:
        for number in range(PAYLOAD_BYTES_MAX // 1024):
            assert (await client.posts(UP, bytes(1024), block=Block(number, True, 6))).code == Code.CONTINUE
        last = Block(PAYLOAD_BYTES_MAX // 1024, False, 6)
        assert (await client.posts(UP, b"x", block=last)).code == Code.TOO_LARGE
        assert (await client.posts(UP, b"x", block=last)).code == Code.INCOMPLETE, "it is forgotten"


async def test_uploads_of_one_address_are_few(client: Client) -> None:
    codes = [
        (await client.posts(f"pump{n}", bytes(16), query="key=network", block=Block(0, True, 0))).code for n in range(5)
    ]
    assert codes == 4 * [Code.CONTINUE] + [Code.UNAVAILABLE]


# What there is


async def test_well_known_core(client: Client) -> None:
    answer = await client.posts(".well-known/core", code=Code.GET, query="rt=tidegate.commands")
    assert (answer.code, answer.number(Option.CONTENT_FORMAT)) == (Code.CONTENT, 40)
    assert answer.payload.decode().split(",") == [
        '</sensors/%7Bserial%7D/down>;rt="tidegate.commands";title="/sensors/{serial}/down";obs',
        '</%7Bserial%7D/down>;rt="tidegate.commands";title="/{serial}/down";obs',
    ]
    large = ((Option.BLOCK2, Block(0, False, 6).encode()),)
    answer = await client.posts(".well-known/core", code=Code.GET, query="", options=large)
    assert (len(answer.payload), answer.block(Option.BLOCK2)) == (256, Block(0, True, 4)), "smaller than asked for"
    whole, number = b"", 0
    while True:
        block = ((Option.BLOCK2, Block(number, False, 4).encode()),)
        answer = await client.posts(".well-known/core", code=Code.GET, query="", options=block)
        whole += answer.payload
        number += 1
        told = answer.block(Option.BLOCK2)
        assert told is not None
        if not told.more:
            break
    assert whole.count(b"rt=") == 6
    beyond = ((Option.BLOCK2, Block(number, False, 4).encode()),)
    assert (await client.posts(".well-known/core", code=Code.GET, query="", options=beyond)).code == Code.BAD_REQUEST


# Commands


async def observing(client: Client, path: str = DOWN, **how: Any) -> Message:
    options = ((Option.OBSERVE, b""),)
    return await client.posts(path, code=Code.GET, options=options, **how)


async def test_a_command_is_delivered_when_the_device_acknowledges_it(listener: CoapListener, client: Client) -> None:
    assert listener.way("serial", "pump") is None
    registered = await observing(client)
    assert registered.code == Code.CONTENT
    way = listener.way("serial", "pump")
    assert way is not None
    assert way.confirms
    sending = asyncio.create_task(way.send(command()))
    told = await client.next()
    assert (told.kind, told.code, told.token) == (Kind.CONFIRMABLE, Code.CONTENT, registered.token)
    assert told.payload == b'{"command":"set","id":"c1","payload":{"speed":3}}'
    assert told.number(Option.CONTENT_FORMAT) == 50
    before, after = registered.number(Option.OBSERVE), told.number(Option.OBSERVE)
    assert before is not None
    assert after is not None
    assert after > before
    assert not sending.done()
    client.send(Message(Kind.ACKNOWLEDGEMENT, Code.EMPTY, told.message_id))
    async with asyncio.timeout(ANSWER_S):
        await sending


async def test_each_observation_says_that_the_device_can_be_reached(world: World, client: Client) -> None:
    await client.posts("sensors/pump/up", b"1")
    await client.posts(DOWN, code=Code.GET)
    assert world.attendance.told == []
    for _ in range(2):
        await observing(client)
    assert world.attendance.told == [("coap", "quay", "serial", "pump")] * 2


async def test_the_answer_of_a_device_is_an_event(world: World, client: Client) -> None:
    assert (await client.posts("sensors/pump/response/c1", b'{"ok":true}')).code == Code.CHANGED
    assert (await client.posts("pump/response/c2", b"done", options=((Option.CONTENT_FORMAT, uint(999)),))).code == 68
    origins = [record.origin for record in world.bus.records]
    assert [(origin.topic, origin.codec, origin.priority) for origin in origins] == [
        ("sensors/pump/response/c1", "response", Priority.EVENT),
        ("pump/response/c2", "response", Priority.EVENT),
    ]


async def test_a_device_that_resets_a_command_no_longer_observes(listener: CoapListener, client: Client) -> None:
    await observing(client)
    way = listener.way("serial", "pump")
    assert way is not None
    sending = asyncio.create_task(way.send(command()))
    told = await client.next()
    client.send(Message(Kind.RESET, Code.EMPTY, told.message_id))
    with pytest.raises(DeviceAbsentError, match="no longer observes"):
        await sending
    assert listener.way("serial", "pump") is None
    with pytest.raises(DeviceAbsentError):
        await way.send(command())


async def test_a_device_that_comes_back_elsewhere_gets_the_command_anew(listener: CoapListener, client: Client) -> None:
    await observing(client)
    way = listener.way("serial", "pump")
    assert way is not None
    sending = asyncio.create_task(way.send(command()))
    await client.next()
    async with Client.to(listener.port) as moved:
        await observing(moved, "pump/down")
        with pytest.raises(DeviceGoneError):
            await sending
        sending = asyncio.create_task(way.send(command()))
        told = await moved.next()
        moved.send(Message(Kind.ACKNOWLEDGEMENT, Code.EMPTY, told.message_id))
        await sending


async def test_a_device_that_is_silent_may_have_the_command(
    listener: CoapListener, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.listeners.coap.confirmables.ACK_S", 0.01)
    await observing(client)
    way = listener.way("serial", "pump")
    assert way is not None
    with pytest.raises(DeviceGoneError, match="did not acknowledge"):
        await way.send(command())
    sent = [await client.next_bytes() for _ in range(5)]
    assert len(set(sent)) == 1, "the same message, sent again"
    assert listener.way("serial", "pump") is None


async def test_a_command_longer_than_a_message_is_delivered_with_its_last_block(
    listener: CoapListener, client: Client
) -> None:
    await observing(client)
    way = listener.way("serial", "pump")
    assert way is not None
    sending = asyncio.create_task(way.send(command(payload=b'"' + 3000 * b"x" + b'"')))
    told = await client.next()
    client.send(Message(Kind.ACKNOWLEDGEMENT, Code.EMPTY, told.message_id))
    body, block = told.payload, told.block(Option.BLOCK2)
    while block is not None and block.more:
        assert not sending.done()
        next_block = ((Option.BLOCK2, Block(block.number + 1, False, block.exponent).encode()),)
        told = await client.posts(DOWN, code=Code.GET, options=next_block)
        body, block = body + told.payload, told.block(Option.BLOCK2)
    await sending
    assert body.startswith(b'{"command":"set","id":"c1","payload":"xxx')
    assert len(body) > 3000


async def test_an_observation_ends_as_it_is_asked_to_or_with_its_credential(
    world: World, listener: CoapListener, client: Client
) -> None:
    asked = client.message(DOWN, code=Code.GET, options=((Option.OBSERVE, b""),))
    await client.asks(asked)
    ended = Message(0, Code.GET, 999, asked.token, ((Option.OBSERVE, b"\x01"), *asked.options[1:]))
    assert (await client.asks(ended)).number(Option.OBSERVE) is None
    assert listener.way("serial", "pump") is None
    await observing(client)
    assert listener.way("serial", "pump") is not None
    world.registry.apply(RegistryChange("demo", 1, 2, gone_devices=(1,)))
    listener.recheck()
    assert listener.way("serial", "pump") is None
