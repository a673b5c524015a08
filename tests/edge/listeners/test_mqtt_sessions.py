"""MQTT sessions: what outlives a connection, and what outlives the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge.listeners.mqtt.listener import MqttListener
from edge.listeners.way import DeviceGoneError
from protocols.mqtt.connect import Connect, encode_connect
from protocols.mqtt.packets import Ack, Disconnect, Publish, Subscription
from protocols.mqtt.reasons import Reason
from protocols.mqtt.session import EXPIRY_MAX_S
from protocols.mqtt.wire import PUBACK, PUBCOMP, PUBREC, PUBREL, V5, V311
from sync.bus.contract import BusRefusedError
from tests.edge.listeners.mqtt_client import Packets
from tests.edge.listeners.mqtt_world import Client, World, send, until

pytestmark = pytest.mark.servers
BOTH = pytest.mark.parametrize("version", [V311, V5])
DAY_S = 86_400


@pytest.fixture
async def world() -> World:
    return World()


@pytest.fixture
async def listener(world: World) -> AsyncIterator[MqttListener]:
    async with world.listening() as made:
        yield made


async def kept(port: int, version: int, client_id: str = "c") -> Packets:
    """With a session that outlives its connection."""
    expiry = {"session_expiry_s": DAY_S} if version == V5 else {}
    return await Packets.connect(port, client_id, clean=False, version=version, **expiry)


# ---- QoS 2 from the device


@BOTH
@pytest.mark.mqtt("3.1.1", "MQTT-4.3.3-2")
@pytest.mark.mqtt("5.0", "MQTT-4.3.3-8", "MQTT-4.3.3-9", "MQTT-4.3.3-11")
async def test_qos_2_is_recorded_once_and_answered_when_it_is_safe(
    world: World, listener: MqttListener, version: int
) -> None:
    device = await Packets.connect(listener.port, version=version)
    world.bus.hold()
    device.says(Publish("up", b"1", 2, 7))
    await world.bus.reached(1)
    device.says(Publish("up", b"1", 2, 7, dup=True))
    assert await device.is_quiet()
    world.bus.release()
    assert await device.hears(Ack) == Ack(PUBREC, 7)
    device.says(Publish("up", b"1", 2, 7, dup=True))
    assert await device.hears(Ack) == Ack(PUBREC, 7)
    device.says(Ack(PUBREL, 7))
    assert await device.hears(Ack) == Ack(PUBCOMP, 7)
    await device.publishes("up", b"2", 2, 7)
    assert [record.payload for record in world.bus.records] == [b"1", b"2"]


@BOTH
@pytest.mark.mqtt("3.1.1", "MQTT-4.1.0-1")
@pytest.mark.mqtt("5.0", "MQTT-4.1.0-1")
async def test_qos_2_is_recorded_once_over_a_new_connection(world: World, listener: MqttListener, version: int) -> None:
    device = await kept(listener.port, version)
    device.says(Publish("up", b"1", 2, 7))
    assert await device.hears(Ack) == Ack(PUBREC, 7)
    await device.is_lost()
    again = await kept(listener.port, version)
    assert again.connack.session_present
    again.says(Publish("up", b"1", 2, 7, dup=True))
    assert await again.hears(Ack) == Ack(PUBREC, 7)
    again.says(Ack(PUBREL, 7))
    assert await again.hears(Ack) == Ack(PUBCOMP, 7)
    assert [record.payload for record in world.bus.records] == [b"1"]


@BOTH
@pytest.mark.mqtt("3.1.1", "section 4.1")
@pytest.mark.mqtt("5.0", "section 4.1")
async def test_qos_2_is_recorded_once_over_a_restart_of_the_gateway(world: World, tmp_path: Path, version: int) -> None:
    async with world.listening(data_dir=tmp_path) as listener:
        device = await kept(listener.port, version)
        for packet_id in (7, 8):
            device.says(Publish("up", b"%d" % packet_id, 2, packet_id))
            assert await device.hears(Ack) == Ack(PUBREC, packet_id)
        device.says(Ack(PUBREL, 8))
        assert await device.hears(Ack) == Ack(PUBCOMP, 8)
    async with world.listening(data_dir=tmp_path) as listener:
        device = await kept(listener.port, version)
        assert device.connack.session_present
        device.says(Publish("up", b"7", 2, 7, dup=True))
        assert await device.hears(Ack) == Ack(PUBREC, 7)
        await device.publishes("up", b"another", 2, 8)  # an identifier that was released is a new message's
    assert [record.payload for record in world.bus.records] == [b"7", b"8", b"another"]


@pytest.mark.parametrize("is_logged", [True, False])
async def test_a_crash_between_the_log_and_the_answer_neither_loses_nor_doubles_qos_2(
    world: World, tmp_path: Path, is_logged: bool
) -> None:
    """The note that was made first, and the log, say together what became of it."""
    async with world.listening(data_dir=tmp_path) as listener:
        device = await kept(listener.port, V5)
        world.bus.hold()
        device.says(Publish("up", b"1", 2, 7))
        await world.bus.reached(1)
        key = world.bus.batches[0].key
        crashed = tmp_path / "crashed"
        crashed.mkdir()
        for file in tmp_path.glob("mqtt.db*"):
            (crashed / file.name).write_bytes(file.read_bytes())
        world.bus.release()
    world.bus.batches.clear()
    world.bus.kept = {key} if is_logged else set()
    async with world.listening(data_dir=crashed) as listener:
        device = await kept(listener.port, V5)
        assert device.connack.session_present
        device.says(Publish("up", b"1", 2, 7, dup=True))
        assert await device.hears(Ack) == Ack(PUBREC, 7)
    assert [record.payload for record in world.bus.records] == ([] if is_logged else [b"1"])


async def test_qos_2_that_was_refused_is_taken_when_it_comes_again(world: World, listener: MqttListener) -> None:
    device = await kept(listener.port, V5)
    world.bus.failures.append(BusRefusedError("log-full", "2 GB of 2 GB"))
    device.says(Publish("up", b"1", 2, 7))
    assert await device.hears(Disconnect) == Disconnect(Reason.QUOTA_EXCEEDED)
    again = await kept(listener.port, V5)
    await again.publishes("up", b"1", 2, 7, dup=True)
    assert world.collector.counters.recorded == 1


async def test_a_release_of_nothing_is_answered(listener: MqttListener) -> None:
    device = await Packets.connect(listener.port)
    device.says(Ack(PUBREL, 9))
    assert (await device.hears(Ack)).kind == PUBCOMP


# ---- what goes to the device


@BOTH
@pytest.mark.mqtt("3.1.1", "MQTT-3.1.2-5", "MQTT-3.2.2-2", "MQTT-4.4.0-1", "MQTT-3.3.1-1")
@pytest.mark.mqtt("5.0", "MQTT-3.2.2-3", "MQTT-4.4.0-1", "MQTT-3.3.1-1")
async def test_a_command_without_an_answer_is_sent_again_and_once_only(listener: MqttListener, version: int) -> None:
    device = await kept(listener.port, version)
    await device.subscribes("down/#")
    later = listener.network.now_ms() + 60_000
    first = send(listener, "go", b"1", command_id="c-1", deadline=later)
    sent = await device.hears(Publish)
    await device.is_lost()
    with pytest.raises(DeviceGoneError):
        await first
    again = await kept(listener.port, version)
    repeated = await again.hears(Publish)
    assert (repeated.packet_id, repeated.payload, repeated.dup) == (sent.packet_id, b"1", True)
    second = send(listener, "go", b"1", command_id="c-1", deadline=later)
    assert await again.is_quiet()  # it is on its way already
    again.says(Ack(PUBACK, repeated.packet_id))
    await second
    await send(listener, "go", b"1", command_id="c-1", deadline=later)  # the device has it
    assert await again.is_quiet()


@BOTH
@pytest.mark.mqtt("3.1.1", "MQTT-3.1.2-4", "MQTT-3.1.2-5")
@pytest.mark.mqtt("5.0", "section 3.1.2.11.2", "MQTT-3.1.2-23")
async def test_subscriptions_are_kept_over_a_restart_of_the_gateway(world: World, tmp_path: Path, version: int) -> None:
    async with world.listening(data_dir=tmp_path) as listener:
        device = await kept(listener.port, version)
        assert not device.connack.session_present
        assert await device.subscribes("down/go") == [2]
    async with world.listening(data_dir=tmp_path) as listener:
        device = await kept(listener.port, version)
        assert device.connack.session_present
        sent = send(listener, "go", b"1", deadline=listener.network.now_ms() + 60_000)
        device.says(Ack(PUBACK, (await device.hears(Publish)).packet_id))
        await sent


@BOTH
@pytest.mark.mqtt("3.1.1", "MQTT-3.1.2-6", "MQTT-3.2.2-1")
@pytest.mark.mqtt("5.0", "MQTT-3.1.2-4", "MQTT-3.2.2-2")
async def test_a_clean_start_forgets_the_session(listener: MqttListener, version: int) -> None:
    device = await kept(listener.port, version)
    await device.subscribes("down/#")
    await device.disconnects()
    fresh = await Packets.connect(listener.port, version=version)
    assert not fresh.connack.session_present
    await fresh.disconnects()
    assert not (await kept(listener.port, version)).connack.session_present


@pytest.mark.mqtt("5.0", "section 3.1.2.11.2", "MQTT-4.1.0-2")
async def test_a_session_ends_when_its_expiry_has_passed(world: World, listener: MqttListener) -> None:
    device = await Packets.connect(listener.port, clean=False, session_expiry_s=60)
    await device.disconnects()
    await until(lambda: not listener.counters.connections)
    world.clock.boot_now_ms += 59_000
    device = await Packets.connect(listener.port, clean=False, session_expiry_s=60)
    assert device.connack.session_present
    await device.disconnects()
    await until(lambda: not listener.counters.connections)
    world.clock.boot_now_ms += 60_000
    assert not (await Packets.connect(listener.port, clean=False)).connack.session_present


@pytest.mark.mqtt("5.0", "section 3.14.2.2.2")
async def test_disconnect_may_change_the_expiry_but_not_begin_one(listener: MqttListener) -> None:
    device = await Packets.connect(listener.port, clean=False, session_expiry_s=60)
    await device.disconnects(session_expiry_s=0)
    again = await Packets.connect(listener.port, clean=False)
    assert not again.connack.session_present
    again.says(Disconnect(Reason.SUCCESS, again.connack.properties.__class__(session_expiry_s=60)))
    assert await again.hears(Disconnect) == Disconnect(Reason.PROTOCOL_ERROR)


@pytest.mark.mqtt("5.0", "section 3.2.2.3.2")
async def test_a_longer_expiry_than_allowed_is_shortened_and_said(listener: MqttListener) -> None:
    device = await Packets.connect(listener.port, session_expiry_s=0xFFFFFFFF)
    assert device.connack.properties.session_expiry_s == EXPIRY_MAX_S


@pytest.mark.mqtt("3.1.1", "MQTT-3.1.3-6", "MQTT-3.1.3-8")
@pytest.mark.mqtt("5.0", "MQTT-3.1.3-6", "MQTT-3.1.3-7", "MQTT-3.2.2-16")
async def test_a_client_without_an_identifier_is_given_one(listener: MqttListener) -> None:
    devices = [await Packets.connect(listener.port, "", session_expiry_s=60) for _ in range(2)]
    first, second = (device.connack.properties.assigned_client_id for device in devices)
    assert first
    assert first != second
    await devices[0].is_lost()
    again = await Packets.connect(listener.port, first, clean=False, session_expiry_s=60)
    assert again.connack.session_present
    refused = await Client.open(listener.port)
    refused.writer.write(encode_connect(Connect("", False, user_name="pump", password=b"pump-secret")))
    assert await refused.ended() == b"\x20\x02\x00\x02"


@pytest.mark.mqtt("3.1.1", "MQTT-3.1.4-2")
@pytest.mark.mqtt("5.0", "MQTT-3.1.4-3", "MQTT-4.13.1-1")
async def test_a_second_connection_takes_over_and_the_first_is_told(listener: MqttListener) -> None:
    older = await kept(listener.port, V5)
    await older.subscribes("down/#")
    newer = await kept(listener.port, V5)
    assert newer.connack.session_present
    assert await older.hears(Disconnect) == Disconnect(Reason.SESSION_TAKEN_OVER)
    sent = send(listener, "go", b"1", deadline=listener.network.now_ms() + 60_000)
    newer.says(Ack(PUBACK, (await newer.hears(Publish)).packet_id))
    await sent


async def test_the_sessions_of_a_device_are_bounded(listener: MqttListener) -> None:
    for number in range(12):
        device = await kept(listener.port, V5, f"client-{number}")
        await device.disconnects()
        await until(lambda: not listener.counters.connections)
    present = []
    for number in (0, 11):
        device = await kept(listener.port, V5, f"client-{number}")
        present.append(device.connack.session_present)
    assert present == [False, True]


async def test_the_sessions_of_a_network_are_bounded(listener: MqttListener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.listeners.mqtt.network.SESSIONS_AWAY_MAX", 2)
    login = {"password": "network", "clean": False, "session_expiry_s": DAY_S}
    for user in ("a", "b", "c"):
        device = await Packets.connect(listener.port, user=user, **login)
        await device.disconnects()
        await until(lambda: not listener.counters.connections)
    present = [
        (await Packets.connect(listener.port, user=user, **login)).connack.session_present for user in ("a", "b", "c")
    ]
    assert present == [False, True, True]


async def test_a_damaged_store_is_put_aside_and_sessions_begin_anew(world: World, tmp_path: Path) -> None:
    (tmp_path / "mqtt.db").write_bytes(b"not a database" * 1000)
    async with world.listening(data_dir=tmp_path) as listener:
        assert not (await kept(listener.port, V5)).connack.session_present
    assert (tmp_path / "mqtt.db.damaged").exists()
    async with world.listening(data_dir=tmp_path) as listener:
        assert (await kept(listener.port, V5)).connack.session_present


@pytest.mark.mqtt("5.0", "MQTT-3.3.4-9", "MQTT-4.9.0-1", "MQTT-4.9.0-2", "section 3.1.2.11.3")
async def test_no_more_is_sent_than_the_client_takes_at_a_time(listener: MqttListener) -> None:
    device = await Packets.connect(listener.port, receive_max=2)
    await device.subscribes("down/#")
    later = listener.network.now_ms() + 60_000
    for _ in range(2):
        send(listener, "go", b"1", deadline=later).add_done_callback(lambda task: task.exception())
    first, _ = [await device.hears(Publish) for _ in range(2)]
    third = send(listener, "go", b"3", deadline=later)
    with pytest.raises(Exception, match="2 messages wait"):
        await third
    device.says(Ack(PUBACK, first.packet_id))
    assert await device.is_quiet()
    fourth = send(listener, "go", b"4", deadline=later)
    assert (await device.hears(Publish)).payload == b"4"
    fourth.cancel()


@pytest.mark.mqtt("5.0", "MQTT-3.1.2-24", "MQTT-3.1.2-25")
async def test_a_packet_larger_than_the_client_takes_is_not_sent(listener: MqttListener) -> None:
    device = await Packets.connect(listener.port, packet_bytes_max=100)
    await device.subscribes("down/#")
    with pytest.raises(Exception, match="the device takes 100"):
        await send(listener, "go", b"x" * 100, deadline=listener.network.now_ms() + 60_000)
    assert await device.is_quiet()


@pytest.mark.mqtt("5.0", "MQTT-3.8.4-8")
async def test_a_subscription_with_qos_0_gets_commands_without_an_answer(listener: MqttListener) -> None:
    device = await Packets.connect(listener.port)
    assert await device.subscribes(Subscription("down/#", 0)) == [0]
    await send(listener, "go", b"1", deadline=listener.network.now_ms() + 60_000)
    assert (await device.hears(Publish)).qos == 0


async def test_what_waits_for_the_disk_is_answered_when_it_is_there(
    listener: MqttListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SUBACK of a session that is kept says that the subscription is."""
    import sqlite3

    from edge.listeners.mqtt import store

    written = store._write

    def full(database: sqlite3.Connection | None, changes: list[store.Change]) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    device = await kept(listener.port, V5)
    await device.publishes("up", b"0")
    monkeypatch.setattr(store, "RETRY_S", 0.01)
    monkeypatch.setattr(store, "_write", full)
    subscribing = asyncio.create_task(device.subscribes("down/#"))
    await asyncio.sleep(0.05)  # nothing tells that nothing comes
    assert not subscribing.done()
    monkeypatch.setattr(store, "_write", written)
    assert await subscribing == [2]
