"""MQTT between devices of a network that lets them talk: subscriptions, retained messages, wills."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge.listeners.mqtt.listener import MqttListener
from protocols.metadata import decode_metadata
from protocols.mqtt.connect import Will
from protocols.mqtt.packets import Ack, Disconnect, Publish, Subscription, Unsubscribe
from protocols.mqtt.properties import Properties
from protocols.mqtt.reasons import Reason
from protocols.mqtt.wire import PUBACK, PUBCOMP, PUBREC, PUBREL, V5, V311
from sync.registry import Registry
from tests.edge.listeners.mqtt_client import Packets
from tests.edge.listeners.mqtt_world import World, registry_change, until

pytestmark = pytest.mark.servers
BOTH = pytest.mark.parametrize("version", [V311, V5])


@pytest.fixture
async def world() -> World:
    """Network `quay`, whose devices may talk to each other."""
    registry = Registry("demo")
    registry.apply(registry_change(device_talk=True))
    return World(registry=registry)


@pytest.fixture
async def listener(world: World) -> AsyncIterator[MqttListener]:
    async with world.listening() as made:
        yield made


async def other(port: int, client_id: str = "other", *, version: int = V5, **options: object) -> Packets:
    """Another device of the network."""
    return await Packets.connect(port, client_id, user="tank", password="network", version=version, **options)


# ---- who gets what


@BOTH
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.mqtt("3.1.1", "MQTT-4.3.1-1", "MQTT-4.3.2-1", "MQTT-4.3.3-1", "MQTT-3.3.5-1", "MQTT-3.8.4-6")
@pytest.mark.mqtt("5.0", "MQTT-4.3.1-1", "MQTT-4.3.2-1", "MQTT-4.3.3-1", "MQTT-3.8.4-8")
async def test_devices_hear_each_other_once_it_is_recorded(
    world: World, listener: MqttListener, version: int, qos: int
) -> None:
    tank, pump = await other(listener.port, version=version), await Packets.connect(listener.port, version=version)
    assert await tank.subscribes("pumps/+/speed") == [2]
    world.bus.hold()
    pump.says(Publish("pumps/7/speed", b"3", qos, 5 if qos else 0))
    await world.bus.reached(1)
    assert await tank.is_quiet()
    world.bus.release()
    got = await tank.hears(Publish)
    assert (got.topic, got.payload, got.qos, got.dup, got.retain) == ("pumps/7/speed", b"3", qos, False, False)
    if qos == 1:
        assert await pump.hears(Ack) == Ack(PUBACK, 5)
        tank.says(Ack(PUBACK, got.packet_id))
    if qos == 2:
        assert await pump.hears(Ack) == Ack(PUBREC, 5)
        tank.says(Ack(PUBREC, got.packet_id))
        assert await tank.hears(Ack) == Ack(PUBREL, got.packet_id)
        tank.says(Ack(PUBCOMP, got.packet_id))
    assert await tank.is_quiet()
    (record,) = world.bus.records
    assert (record.origin.alias, record.origin.topic, record.payload) == ("pump", "pumps/7/speed", b"3")


@pytest.mark.mqtt("3.1.1", "MQTT-3.8.4-6")
async def test_the_lower_qos_counts(listener: MqttListener) -> None:
    tank, pump = await other(listener.port), await Packets.connect(listener.port)
    assert await tank.subscribes(Subscription("a", 1), Subscription("b", 0)) == [1, 0]
    await pump.publishes("a", b"", 2)
    await pump.publishes("b", b"", 2)
    assert [(await tank.hears(Publish)).qos for _ in range(2)] == [1, 0]


@BOTH
@pytest.mark.mqtt("3.1.1", "MQTT-4.7.1-2", "MQTT-4.7.1-3", "MQTT-4.7.2-1", "MQTT-4.7.3-4")
@pytest.mark.mqtt("5.0", "MQTT-4.7.1-1", "MQTT-4.7.1-2", "MQTT-4.7.2-1", "MQTT-4.7.3-4")
async def test_wildcards_and_topics_of_the_server(listener: MqttListener, version: int) -> None:
    tank, pump = await other(listener.port, version=version), await Packets.connect(listener.port, version=version)
    await tank.subscribes("#", "+/x", "sport/#")
    for topic in ("sport", "Sport", "/x", "$SYS/x", "down/go"):
        await pump.publishes(topic, b"")
    heard = [(await tank.hears(Publish)).topic for _ in range(3)]
    assert heard == ["sport", "Sport", "/x"]
    assert await tank.is_quiet()  # neither `$`, nor what is the gateway's to send


@pytest.mark.mqtt("3.1.1", "MQTT-3.3.5-1", "MQTT-3.8.4-3")
@pytest.mark.mqtt("5.0", "MQTT-3.3.4-2", "MQTT-3.3.4-3", "MQTT-3.3.4-4", "MQTT-3.3.4-5", "MQTT-3.8.4-3")
async def test_overlapping_subscriptions_give_one_message_with_all_their_identifiers(listener: MqttListener) -> None:
    tank, pump = await other(listener.port), await Packets.connect(listener.port)
    await tank.subscribes(Subscription("a/#", 0), identifier=5)
    await tank.subscribes(Subscription("a/+", 1), identifier=300_000)
    await tank.subscribes(Subscription("a/b", 0))
    await tank.subscribes(Subscription("a/b", 1), identifier=6)  # takes the place of the one before
    await pump.publishes("a/b", b"", 2)
    got = await tank.hears(Publish)
    assert (got.qos, got.properties.subscription_ids) == (1, (5, 6, 300_000))
    assert await tank.is_quiet()


@pytest.mark.mqtt("5.0", "MQTT-3.8.3-3")
async def test_no_local_keeps_a_clients_own_messages_away(listener: MqttListener) -> None:
    tank = await other(listener.port)
    await tank.subscribes(Subscription("a", 0, no_local=True), Subscription("b", 0))
    await tank.publishes("a", b"", 1)
    tank.says(Publish("b", b"own"))
    assert (await tank.hears(Publish)).topic == "b"


@pytest.mark.mqtt("3.1.1", "MQTT-3.10.4-1", "MQTT-3.10.4-2", "MQTT-3.10.4-4", "MQTT-3.10.4-5", "MQTT-3.10.4-6")
@pytest.mark.mqtt("5.0", "MQTT-3.10.4-1", "MQTT-3.10.4-2", "MQTT-3.10.4-4", "MQTT-3.10.4-6", "MQTT-3.11.3-1")
async def test_what_is_unsubscribed_does_not_come(listener: MqttListener) -> None:
    tank, pump = await other(listener.port), await Packets.connect(listener.port)
    await tank.subscribes("a/+", "b")
    tank.says(Unsubscribe(9, ("a/+", "never", "b", "$share/no-filter")))
    none = Reason.NO_SUBSCRIPTION_EXISTED
    assert await tank.hears(list) == [Reason.SUCCESS, none, Reason.SUCCESS, none]
    await pump.publishes("a/b", b"")
    assert await tank.is_quiet()


@pytest.mark.mqtt("5.0", "MQTT-4.8.2-1", "MQTT-4.8.2-2", "MQTT-4.8.2-4", "section 4.8.2", "MQTT-3.8.3-4")
async def test_a_shared_subscription_goes_to_each_of_its_group_in_turn(listener: MqttListener) -> None:
    pump = await Packets.connect(listener.port)
    first, second = await other(listener.port, "1"), await other(listener.port, "2")
    for member in (first, second):
        assert await member.subscribes(Subscription("$share/workers/jobs/#", 1)) == [1]
    assert await first.subscribes("$share/bad", "$share/+/x") == [Reason.TOPIC_FILTER_INVALID] * 2
    for number in range(4):
        await pump.publishes("jobs/x", b"%d" % number)
    got = [[(await member.hears(Publish)).payload for _ in range(2)] for member in (first, second)]
    assert sorted(payload for each in got for payload in each) == [b"0", b"1", b"2", b"3"]
    await second.is_lost()
    await until(lambda: listener.counters.connections == 2)
    await pump.publishes("jobs/x", b"4")
    assert (await first.hears(Publish)).payload == b"4"
    first.client.writer.write(bytes.fromhex("82 0f 0001 00 0009") + b"$share/g/" + b"\x04")
    assert (await first.hears(Disconnect)).reason >= Reason.MALFORMED_PACKET


@BOTH
@pytest.mark.mqtt("3.1.1", "MQTT-4.6.0-1", "MQTT-4.6.0-5", "MQTT-4.6.0-6", "section 4.1")
@pytest.mark.mqtt("5.0", "MQTT-4.6.0-1", "MQTT-4.6.0-5", "MQTT-4.6.0-6", "section 4.1")
async def test_messages_wait_in_order_for_a_device_that_is_away(world: World, tmp_path: Path, version: int) -> None:
    session = {"clean": False} | ({"session_expiry_s": 86_400} if version == V5 else {})
    async with world.listening(data_dir=tmp_path) as listener:
        tank = await other(listener.port, version=version, **session)
        await tank.subscribes(Subscription("a", 1))
        pump = await Packets.connect(listener.port, version=version)
        await pump.publishes("a", b"0")
        sent = await tank.hears(Publish)
        await tank.is_lost()
        for number in range(1, 30):
            await pump.publishes("a", b"%d" % number)
        await pump.publishes("a", b"qos 0", 0)
    async with world.listening(data_dir=tmp_path) as listener:
        tank = await other(listener.port, version=version, **session)
        got = []
        for _ in range(30):
            got.append(await tank.hears(Publish))
            tank.says(Ack(PUBACK, got[-1].packet_id))
        assert [each.payload for each in got] == [b"%d" % number for number in range(30)]
        assert (got[0].dup, got[0].packet_id, got[1].dup) == (True, sent.packet_id, False)
        assert await tank.is_quiet()


@pytest.mark.mqtt("3.1.1", "MQTT-4.6.0-3", "MQTT-4.6.0-4", "MQTT-4.4.0-1")
@pytest.mark.mqtt("5.0", "MQTT-4.3.3-1", "MQTT-4.3.3-4", "MQTT-4.3.3-5", "MQTT-4.3.3-6", "MQTT-4.6.0-3")
async def test_qos_2_to_a_device_goes_on_where_it_stood(world: World, tmp_path: Path) -> None:
    async with world.listening(data_dir=tmp_path) as listener:
        tank = await other(listener.port, clean=False, session_expiry_s=60)
        await tank.subscribes("a")
        pump = await Packets.connect(listener.port)
        for number in (1, 2, 3):
            await pump.publishes("a", b"%d" % number, 2)
        first, second, third = [await tank.hears(Publish) for _ in range(3)]
        tank.says(Ack(PUBREC, first.packet_id))
        assert await tank.hears(Ack) == Ack(PUBREL, first.packet_id)
        tank.says(Ack(PUBREC, second.packet_id, Reason.NOT_AUTHORIZED))
        assert await tank.is_quiet()  # not sent again, and not released
    async with world.listening(data_dir=tmp_path) as listener:
        tank = await other(listener.port, clean=False, session_expiry_s=60)
        assert await tank.hears(Ack) == Ack(PUBREL, first.packet_id)
        again = await tank.hears(Publish)
        assert (again.payload, again.packet_id, again.dup) == (b"3", third.packet_id, True)
        tank.says(Ack(PUBCOMP, first.packet_id))
        assert await tank.is_quiet()
        tank.says(Ack(PUBREC, 999))
        assert await tank.hears(Ack) == Ack(PUBREL, 999, Reason.PACKET_ID_NOT_FOUND)


async def test_what_finds_no_room_is_counted(listener: MqttListener) -> None:
    tank = await other(listener.port, clean=False, session_expiry_s=60)
    await tank.subscribes(Subscription("a", 1))
    await tank.is_lost()
    pump = await Packets.connect(listener.port)
    for _ in range(5):
        await pump.publishes("a", b"x" * 250_000)
    assert listener.network.dropped == {"queue_full": 1}


@pytest.mark.mqtt("5.0", "section 3.3.2.3", "MQTT-3.3.2-4", "MQTT-3.3.2-15", "MQTT-3.3.2-16", "MQTT-3.3.2-17",
                  "MQTT-3.3.2-18", "MQTT-3.3.2-20", "section 4.10")  # fmt: skip
async def test_properties_reach_the_receiver_and_the_record(world: World, listener: MqttListener) -> None:
    tank, pump = await other(listener.port), await Packets.connect(listener.port)
    await tank.subscribes("ask")
    said = Properties(
        payload_format=1,
        content_type="text/plain",
        response_topic="answers/pump",
        correlation=b"q-1",
        user=(("b", "2"), ("a", "1"), ("b", "3")),
    )
    await pump.publishes("ask", b"?", properties=said)
    assert (await tank.hears(Publish)).properties == said
    assert decode_metadata(world.bus.records[0].metadata) == {
        "a": "1",
        "b": "2, 3",
        "$content-type": "text/plain",
        "$response-topic": "answers/pump",
        "$correlation": "q-1",
    }


@pytest.mark.mqtt("5.0", "MQTT-3.3.2-5", "MQTT-3.3.2-6")
async def test_a_message_that_expired_is_not_sent_and_others_say_what_is_left(
    world: World, listener: MqttListener
) -> None:
    tank = await other(listener.port, clean=False, session_expiry_s=600)
    await tank.subscribes("a")
    await tank.is_lost()
    await until(lambda: not listener.counters.connections)
    pump = await Packets.connect(listener.port)
    await pump.publishes("a", b"short", properties=Properties(message_expiry_s=10))
    await pump.publishes("a", b"long", properties=Properties(message_expiry_s=100))
    world.clock.boot_now_ms += 30_000
    tank = await other(listener.port, clean=False, session_expiry_s=600)
    got = await tank.hears(Publish)
    assert (got.payload, got.properties.message_expiry_s) == (b"long", 70)


# ---- topic aliases


@pytest.mark.mqtt("5.0", "MQTT-3.3.2-8", "MQTT-3.3.2-9", "MQTT-3.3.2-12", "section 3.3.2.3.4")
async def test_topic_aliases_stand_for_topics_and_go_no_further(world: World, listener: MqttListener) -> None:
    tank, pump = await other(listener.port), await Packets.connect(listener.port)
    highest = pump.connack.properties.topic_alias_max
    assert highest
    await tank.subscribes("#")
    alias = Properties(topic_alias=highest)
    await pump.publishes("long/topic", b"1", properties=alias)
    for payload in (b"2", b"3"):
        await pump.publishes("", payload, properties=alias)
    await pump.publishes("another", b"4", properties=alias)
    await pump.publishes("", b"5", properties=alias)
    assert [(record.origin.topic, record.payload) for record in world.bus.records] == [
        ("long/topic", b"1"), ("long/topic", b"2"), ("long/topic", b"3"), ("another", b"4"), ("another", b"5"),
    ]  # fmt: skip
    got = [await tank.hears(Publish) for _ in range(5)]
    assert {each.properties.topic_alias for each in got} == {None}
    assert [each.topic for each in got][:2] == ["long/topic"] * 2
    pump.says(Publish("x", b"", properties=Properties(topic_alias=highest + 1)))
    assert await pump.hears(Disconnect) == Disconnect(Reason.TOPIC_ALIAS_INVALID)
    stranger = await Packets.connect(listener.port)
    stranger.says(Publish("", b"", properties=Properties(topic_alias=1)))
    assert await stranger.hears(Disconnect) == Disconnect(Reason.PROTOCOL_ERROR)


# ---- retained messages


@BOTH
@pytest.mark.mqtt("3.1.1", "MQTT-3.3.1-5", "MQTT-3.3.1-6", "MQTT-3.3.1-7", "MQTT-3.3.1-8", "MQTT-3.3.1-9",
                  "MQTT-3.3.1-10", "MQTT-3.3.1-11", "MQTT-3.3.1-12")  # fmt: skip
@pytest.mark.mqtt("5.0", "MQTT-3.3.1-5", "MQTT-3.3.1-6", "MQTT-3.3.1-7", "MQTT-3.3.1-8")
async def test_the_last_retained_message_of_a_topic_greets_new_subscribers(
    world: World, tmp_path: Path, version: int
) -> None:
    async with world.listening(data_dir=tmp_path) as listener:
        pump = await Packets.connect(listener.port, version=version)
        await pump.publishes("state/a", b"old", retain=True)
        await pump.publishes("state/a", b"new", retain=True)
        await pump.publishes("state/a", b"not kept")
        await pump.publishes("state/b", b"gone", retain=True)
        tank = await other(listener.port, version=version)
        await tank.subscribes("state/b")
        assert (await tank.hears(Publish)).retain
        await pump.publishes("state/b", b"", retain=True)
        removed = await tank.hears(Publish)
        assert (removed.payload, removed.retain) == (b"", False)
    async with world.listening(data_dir=tmp_path) as listener:
        tank = await other(listener.port, version=version)
        await tank.subscribes("state/#")
        got = await tank.hears(Publish)
        assert (got.topic, got.payload, got.retain, got.qos) == ("state/a", b"new", True, 1)
        assert await tank.is_quiet()


@pytest.mark.mqtt("5.0", "MQTT-3.3.1-9", "MQTT-3.3.1-10", "MQTT-3.3.1-11", "MQTT-3.3.1-12", "MQTT-3.3.1-13",
                  "section 3.8.3.1", "MQTT-3.8.4-4")  # fmt: skip
async def test_retain_handling_and_retain_as_published(listener: MqttListener) -> None:
    tank, pump = await other(listener.port), await Packets.connect(listener.port)
    await pump.publishes("a", b"kept", retain=True)
    await tank.subscribes(Subscription("a", 0, retain_handling=2))
    assert await tank.is_quiet()
    await tank.subscribes(Subscription("a", 0, retain_handling=1))  # not a new one
    assert await tank.is_quiet()
    await tank.subscribes(Subscription("a", 0, retain_as_published=True), identifier=4)
    greeting = await tank.hears(Publish)
    assert (greeting.retain, greeting.properties.subscription_ids) == (True, (4,))
    await tank.subscribes(Subscription("+", 0, retain_handling=1))
    assert (await tank.hears(Publish)).payload == b"kept"
    await tank.subscribes(Subscription("$share/g/a", 0))
    assert await tank.is_quiet()
    await pump.publishes("a", b"now", retain=True)
    assert (await tank.hears(Publish)).retain


@pytest.mark.mqtt("5.0", "section 3.3.2.3.3")
async def test_a_retained_message_expires(world: World, listener: MqttListener) -> None:
    tank, pump = await other(listener.port), await Packets.connect(listener.port)
    await pump.publishes("a", b"kept", retain=True, properties=Properties(message_expiry_s=10))
    world.clock.boot_now_ms += 10_000
    await tank.subscribes("a")
    assert await tank.is_quiet()


# ---- wills

WILL = Will("gone/pump", b"bye", 1, False)


@BOTH
@pytest.mark.mqtt("3.1.1", "MQTT-3.1.2-8", "MQTT-3.1.2-9", "MQTT-3.1.2-16")
@pytest.mark.mqtt("5.0", "MQTT-3.1.2-8", "MQTT-3.1.2-14")
async def test_a_will_is_recorded_and_sent_when_its_device_is_lost(
    world: World, listener: MqttListener, version: int
) -> None:
    tank = await other(listener.port, version=version)
    await tank.subscribes("gone/#")
    pump = await Packets.connect(listener.port, version=version, will=WILL)
    await pump.is_lost()
    got = await tank.hears(Publish)
    assert (got.topic, got.payload, got.qos, got.retain) == ("gone/pump", b"bye", 1, False)
    (record,) = world.bus.records
    assert (record.origin.alias, record.origin.topic, record.payload) == ("pump", "gone/pump", b"bye")


@BOTH
@pytest.mark.mqtt("3.1.1", "MQTT-3.1.2-10", "MQTT-3.14.4-3")
@pytest.mark.mqtt("5.0", "MQTT-3.1.2-10", "MQTT-3.14.4-3")
async def test_a_goodbye_removes_the_will(world: World, listener: MqttListener, version: int) -> None:
    pump = await Packets.connect(listener.port, version=version, will=WILL)
    await pump.disconnects()
    await until(lambda: not listener.counters.connections)
    await world.collector.drained()
    assert world.bus.records == []


@pytest.mark.mqtt("5.0", "section 3.14.2.1")
async def test_a_goodbye_may_ask_for_the_will(world: World, listener: MqttListener) -> None:
    pump = await Packets.connect(listener.port, will=WILL)
    await pump.disconnects(Reason.DISCONNECT_WITH_WILL)
    await until(lambda: len(world.bus.records) == 1)


@pytest.mark.mqtt("3.1.1", "MQTT-3.1.2-17", "MQTT-4.8.0-1")
@pytest.mark.mqtt("5.0", "MQTT-3.1.2-15", "MQTT-4.13.1-1")
async def test_a_will_follows_what_the_server_closes_and_may_be_retained(world: World, listener: MqttListener) -> None:
    pump = await Packets.connect(listener.port, will=Will("gone", b"bye", 0, True))
    pump.client.writer.write(b"\xff\x00")
    await pump.client.ended()
    await until(lambda: len(world.bus.records) == 1)
    tank = await other(listener.port)
    await tank.subscribes("gone")
    assert (await tank.hears(Publish)).retain


@pytest.mark.mqtt("5.0", "MQTT-3.1.3-9", "section 3.1.3.2.2")
async def test_a_will_waits_and_a_device_that_comes_back_takes_it_back(world: World, listener: MqttListener) -> None:
    will = Will("gone", b"bye", 1, False, Properties(will_delay_s=30))
    session = {"clean": False, "session_expiry_s": 60, "will": will}
    pump = await Packets.connect(listener.port, **session)
    await pump.is_lost()
    await until(lambda: not listener.counters.connections)
    world.clock.boot_now_ms += 29_000
    listener.network.turn(listener)
    pump = await Packets.connect(listener.port, **session)
    world.clock.boot_now_ms += 60_000
    listener.network.turn(listener)
    assert await pump.is_quiet()
    await world.collector.drained()
    assert world.bus.records == []
    await pump.is_lost()
    await until(lambda: not listener.counters.connections)
    world.clock.boot_now_ms += 30_000
    listener.network.turn(listener)
    await until(lambda: len(world.bus.records) == 1)


@pytest.mark.mqtt("5.0", "MQTT-3.1.4-3", "section 3.1.3.2.2")
async def test_a_will_that_waits_is_due_when_its_session_ends(world: World, listener: MqttListener) -> None:
    will = Will("gone", b"bye", 1, False, Properties(will_delay_s=30))
    pump = await Packets.connect(listener.port, clean=False, session_expiry_s=60, will=will)
    await pump.is_lost()
    await until(lambda: not listener.counters.connections)
    await Packets.connect(listener.port, clean=True)
    await until(lambda: len(world.bus.records) == 1)


async def test_a_will_of_mqtt_5_carries_its_properties(world: World, listener: MqttListener) -> None:
    will = Will("gone", b"bye", 0, False, Properties(user=(("why", "battery"),)))
    await (await Packets.connect(listener.port, will=will)).is_lost()
    await until(lambda: len(world.bus.records) == 1)
    assert decode_metadata(world.bus.records[0].metadata) == {"why": "battery"}


@pytest.mark.parametrize("delay_s", [0, 30])
async def test_wills_are_recorded_when_the_gateway_stops(world: World, delay_s: int) -> None:
    will = Will("gone", b"bye", 1, False, Properties(will_delay_s=delay_s))
    async with world.listening() as listener:
        pump = await Packets.connect(listener.port, clean=False, session_expiry_s=60, will=will)
        closing = asyncio.create_task(listener.close())
        assert await pump.hears(Disconnect) == Disconnect(Reason.SERVER_SHUTTING_DOWN)
        await pump.is_lost()
        await closing
        assert [record.payload for record in world.bus.records] == [b"bye"]


# ---- a network whose devices do not talk


@BOTH
@pytest.mark.mqtt("3.1.1", "MQTT-3.8.4-5", "MQTT-3.9.3-2")
@pytest.mark.mqtt("5.0", "MQTT-3.9.3-1", "MQTT-3.9.3-2", "MQTT-3.8.4-6")
async def test_where_devices_do_not_talk_each_sees_its_own_topics_only(version: int) -> None:
    world = World()
    async with world.listening() as listener:
        tank, pump = await other(listener.port, version=version), await Packets.connect(listener.port, version=version)
        refused = Reason.NOT_AUTHORIZED if version == V5 else 0x80
        codes = await tank.subscribes("up", "#", "$share/g/up", "down/#", "$share/g/down/#")
        assert codes == [refused, refused, refused, 2, 2]
        await pump.publishes("up", b"", retain=True)
        await pump.publishes("down/go", b"not from a device")
        assert await tank.is_quiet()


async def test_what_was_subscribed_falls_silent_when_the_network_no_longer_lets_devices_talk(
    world: World, listener: MqttListener
) -> None:
    tank, pump = await other(listener.port), await Packets.connect(listener.port)
    await tank.subscribes("a")
    await pump.publishes("a", b"1")
    assert (await tank.hears(Publish)).payload == b"1"
    world.registry.apply(registry_change(device_talk=False))
    await pump.publishes("a", b"2")
    assert await tank.is_quiet()
