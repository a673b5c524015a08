from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edge.listeners.config import PriorityConfig, PriorityName
from edge.listeners.mqtt import connection
from edge.listeners.mqtt.connection import CONNECT_TICKS, CONTROL_PACKETS_PER_TICK_MAX
from edge.listeners.mqtt.inbound import CONNECTION_RECORDS_MAX
from edge.listeners.mqtt.listener import MqttListener
from edge.listeners.way import DeviceAbsentError, DeviceGoneError
from protocols.limits import PAYLOAD_BYTES_MAX
from protocols.messages import Origin
from protocols.mqtt.connect import Connect, encode_connect
from protocols.mqtt.packets import Publish, encode_publish, encode_suback
from protocols.mqtt.wire import PINGREQ_PACKET, PINGRESP_PACKET
from sync.bus.contract import BusRefusedError
from sync.registry import Registry, RegistryChange
from tests.edge.listeners.mqtt_world import ANSWER_S, Client, World, send, subscribe, until
from tidegate.console import UserError

pytestmark = pytest.mark.servers

PUBACK_1 = b"\x40\x02\x00\x01"


def publish(payload: bytes = b'{"t":1}', packet_id: int = 1, *, topic: str = "up") -> bytes:
    return encode_publish(Publish(topic, payload, 1 if packet_id else 0, packet_id))


@pytest.fixture
async def world() -> World:
    return World()


@pytest.fixture
async def listener(world: World) -> AsyncIterator[MqttListener]:
    async with world.listening() as made:
        yield made


async def is_served(client: Client) -> bool:
    return await client.asks(PINGREQ_PACKET) == PINGRESP_PACKET


@pytest.mark.mqtt("3.1.1", "MQTT-4.3.2-2", "MQTT-3.3.4-1", "MQTT-4.5.0-1", "section 3.4")
@pytest.mark.mqtt("5.0", "MQTT-4.3.2-4", "MQTT-3.3.4-1", "section 3.4", "MQTT-4.5.0-1")
async def test_a_puback_comes_only_after_the_record_is_safe(world: World, listener: MqttListener) -> None:
    client = await Client.logged_in(listener.port)
    world.bus.hold()
    client.writer.write(publish() + publish(b"2", 2))
    await world.bus.reached(1)
    assert await is_served(client)  # the server reads and answers, but no PUBACK has come
    assert listener.counters.recorded == 0
    world.bus.release()
    assert await client.next() == PUBACK_1
    assert await client.next() == b"\x40\x02\x00\x02"
    (first, _) = world.bus.records
    assert first.origin == Origin("quay", "serial", "pump", "up", "", "mqtt")
    assert first.payload == b'{"t":1}'
    assert first.received_time == world.clock.wall_ms()
    assert (listener.counters.recorded, listener.counters.connections) == (2, 1)


@pytest.mark.mqtt("3.1.1", "MQTT-4.6.0-2", "MQTT-2.3.1-6")
@pytest.mark.mqtt("5.0", "MQTT-4.6.0-2", "MQTT-2.2.1-5")
async def test_many_in_one_write_are_acknowledged_in_order(world: World, listener: MqttListener) -> None:
    client = await Client.logged_in(listener.port)
    client.writer.write(b"".join(publish(b"%d" % number, number) for number in range(1, 501)))
    assert [await client.next() for _ in range(500)] == [b"\x40\x02" + n.to_bytes(2, "big") for n in range(1, 501)]
    assert [record.payload for record in world.bus.records] == [b"%d" % number for number in range(1, 501)]


async def test_qos_0_is_recorded_without_an_answer(world: World, listener: MqttListener) -> None:
    client = await Client.logged_in(listener.port)
    client.writer.write(publish(b"a", 0, topic="up/fast"))
    await world.bus.reached(1)
    await world.collector.drained()
    assert await is_served(client)
    assert world.bus.records[0].origin.topic == "up/fast"
    assert listener.counters.recorded == 1


@pytest.mark.parametrize(
    ("connect", "code", "reason"),
    [
        (Connect("c", user_name="pump", password=b"hunter2"), 5, "wrong_password"),
        (Connect("c", user_name="pump", password=b"network"), 5, "wrong_password"),
        (Connect("c"), 5, "no_credentials"),
    ],
)
async def test_a_wrong_login_is_refused_counted_and_kept_without_its_password(
    listener: MqttListener, connect: Connect, code: int, reason: str
) -> None:
    client = await Client.open(listener.port)
    client.writer.write(encode_connect(connect) + publish())
    assert await client.ended() == bytes((0x20, 2, 0, code))
    assert listener.counters.auth_failures == 1
    assert listener.refusals.counts == {reason: 1}
    (kept,) = listener.refusals.last
    assert kept.peer.startswith("127.0.0.1:")
    assert kept.user_name == (connect.user_name or "")
    assert b"hunter2" not in kept.data


async def test_before_the_first_registry_devices_are_told_to_come_later() -> None:
    world = World(registry=Registry("demo"))
    async with world.listening() as listener:
        client = await Client.open(listener.port)
        client.writer.write(encode_connect(Connect("c", user_name="pump", password=b"x")))
        assert await client.ended() == b"\x20\x02\x00\x03"


@pytest.mark.mqtt("3.1.1", "MQTT-4.8.0-1")
async def test_a_malformed_packet_ends_its_connection_and_no_other(world: World, listener: MqttListener) -> None:
    good, bad = (
        await Client.logged_in(listener.port, client_id="1"),
        await Client.logged_in(listener.port, "bad", "network"),
    )
    world.bus.hold()
    good.writer.write(publish())
    await world.bus.reached(1)
    bad.writer.write(publish(b"kept", 7) + publish(b"two").replace(b"up", b"u+"))
    assert await bad.ended() == b""
    world.bus.release()
    assert await good.next() == PUBACK_1
    await world.collector.drained()
    assert [record.payload for record in world.bus.records] == [b'{"t":1}', b"kept"]
    assert listener.counters.malformed == 1
    (kept,) = listener.refusals.last
    assert (kept.code, kept.user_name) == ("malformed", "bad")
    assert "MQTT-3.3.2-2" in kept.detail
    assert kept.data.startswith(b"\x32\x0a\x00\x02up\x00\x07kept")


async def test_what_a_password_may_stand_in_is_not_kept_of_a_malformed_connect(listener: MqttListener) -> None:
    client = await Client.open(listener.port)
    client.writer.write(encode_connect(Connect("", False, 0, "pump", b"hunter2")))
    assert await client.ended() == b"\x20\x02\x00\x02"
    (kept,) = listener.refusals.last
    assert kept.data == bytes.fromhex("101b 00044d515454 04 c0 0000")  # to the keep-alive
    assert kept.code == "client_id"


async def test_another_protocol_is_cut_off_at_once(listener: MqttListener) -> None:
    client = await Client.open(listener.port)
    client.writer.write(b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n")
    assert await client.ended() == b""
    assert listener.refusals.counts == {"protocol": 1}


async def test_refused_records_get_no_puback_and_their_publisher_is_cut_off(
    world: World, listener: MqttListener
) -> None:
    qos_1, qos_0 = await Client.logged_in(listener.port), await Client.logged_in(listener.port, "tank", "network")
    world.bus.hold()
    world.bus.failures += [BusRefusedError("log-full", "2 GB of 2 GB"), BusRefusedError("log-full", "2 GB of 2 GB")]
    qos_1.writer.write(publish())
    await world.bus.reached(1)
    qos_0.writer.write(publish(b"x", 0))
    assert await is_served(qos_0)
    world.bus.release()
    assert await qos_1.ended() == b""
    await world.collector.drained()
    assert await is_served(qos_0)
    assert listener.counters.refused == {"log-full": 2}
    assert listener.counters.recorded == 0
    again = await Client.logged_in(listener.port)
    assert await again.asks(publish()) == PUBACK_1


@pytest.mark.mqtt("3.1.1", "MQTT-3.1.4-2", "MQTT-3.1.3-2")
async def test_the_same_client_identifier_takes_over(listener: MqttListener) -> None:
    older = await Client.logged_in(listener.port, client_id="same")
    other_device = await Client.logged_in(listener.port, "tank", "network", client_id="same")
    newer = await Client.logged_in(listener.port, client_id="same")
    assert await older.ended() == b""
    assert await is_served(newer)
    assert await is_served(other_device)
    assert listener.refusals.counts == {"taken_over": 1}


async def test_empty_client_identifiers_do_not_meet(listener: MqttListener) -> None:
    clients = [await Client.logged_in(listener.port, client_id="") for _ in range(2)]
    for client in clients:
        assert await is_served(client)


async def test_connections_are_limited(world: World) -> None:
    async with world.listening(connections_max=2) as listener:
        clients = [await Client.logged_in(listener.port, client_id=str(number)) for number in range(2)]
        assert await (await Client.open(listener.port)).ended() == b""
        assert listener.refusals.counts == {"connection_limit": 1}
        assert listener.counters.connections == 2
        await clients[0].close()
        await until(lambda: listener.counters.connections < 2)
        await (await Client.logged_in(listener.port, client_id="3")).close()


async def test_a_connection_without_connect_is_closed_in_time(listener: MqttListener) -> None:
    client = await Client.open(listener.port)
    client.writer.write(b"\x10")
    await until(lambda: listener.counters.bytes_in > 0)
    for _ in range(CONNECT_TICKS):
        listener.wheel.turn()
    assert await client.ended() == b""
    assert listener.refusals.counts == {"connect_timeout": 1}


async def test_a_silent_client_is_closed_after_one_and_a_half_keep_alives(listener: MqttListener) -> None:
    silent = await Client.logged_in(listener.port, client_id="silent", keep_alive_s=10)
    heard = await Client.logged_in(listener.port, client_id="heard", keep_alive_s=10)
    without = await Client.logged_in(listener.port, client_id="without", keep_alive_s=0)
    for _ in range(13):
        listener.wheel.turn()
    assert await is_served(heard)
    assert listener.refusals.counts == {}
    for _ in range(5):
        listener.wheel.turn()
    assert await silent.ended() == b""
    assert listener.refusals.counts == {"keep_alive": 1}
    for client in (heard, without):
        assert await is_served(client)


async def test_a_client_is_not_silent_while_it_is_not_read(world: World, listener: MqttListener) -> None:
    client = await Client.logged_in(listener.port, keep_alive_s=1)
    listener.pause()
    for _ in range(10):
        listener.wheel.turn()
    listener.resume()
    assert await is_served(client)


async def test_one_that_floods_is_held_back_and_its_neighbour_is_not(world: World, listener: MqttListener) -> None:
    flooding, neighbour = (
        await Client.logged_in(listener.port),
        await Client.logged_in(listener.port, "tank", "network"),
    )
    world.bus.hold()
    messages = 60_000
    flooding.writer.write(b"".join(publish(b"x" * 50, number % 65_535 + 1) for number in range(messages)))
    await world.bus.reached(1)
    neighbour.writer.write(publish(b"y"))
    for _ in range(50):  # enough turns of the loop to read all of the flood
        assert await is_served(neighbour)
    one_read = 256 * 1024 // 50
    assert CONNECTION_RECORDS_MAX < world.collector.waiting_records < CONNECTION_RECORDS_MAX + one_read
    assert not listener.paused
    world.bus.release()
    assert await neighbour.next() == PUBACK_1
    async with asyncio.timeout(ANSWER_S):
        assert len(await flooding.reader.readexactly(4 * messages)) == 4 * messages


async def test_too_much_that_waits_stops_the_reading_of_all(
    world: World, listener: MqttListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.listeners.collector.WAITING_RECORDS_MAX", 10)
    client = await Client.logged_in(listener.port)
    world.bus.hold()
    client.writer.write(b"".join(publish(b"x", number) for number in range(1, 12)))
    await world.bus.reached(1)
    assert listener.paused
    later = await Client.open(listener.port)  # is accepted, and read when there is room
    later.writer.write(encode_connect(Connect("l", user_name="tank", password=b"network")))
    before = listener.counters.bytes_in
    client.writer.write(publish(b"y", 12))
    await until(lambda: listener.counters.connections == 2)
    await asyncio.sleep(0.05)  # nothing tells that nothing comes
    assert listener.counters.bytes_in == before
    world.bus.release()
    assert await later.next() == b"\x20\x02\x00\x00"
    assert [await client.next() for _ in range(12)][-1] == b"\x40\x02\x00\x0c"


@pytest.mark.mqtt("3.1.1", "MQTT-4.8.0-2")
@pytest.mark.mqtt("5.0", "MQTT-4.13.2-1")
async def test_a_client_that_never_reads_is_cut_off(world: World, listener: MqttListener) -> None:
    client = await Client.logged_in(listener.port)
    await client.asks(subscribe(1, ("down/#", 0)))
    for _ in range(100):
        if listener.refusals.counts:
            break
        await send(listener, "set", b"x" * PAYLOAD_BYTES_MAX)
    assert listener.refusals.counts == {"slow_reader": 1}
    await client.ended()


async def test_a_flood_of_pings_is_cut_off(listener: MqttListener) -> None:
    client = await Client.logged_in(listener.port)
    client.writer.write(PINGREQ_PACKET * (CONTROL_PACKETS_PER_TICK_MAX + 10))
    await client.ended()
    assert listener.refusals.counts == {"too_frequent": 1}


@pytest.mark.mqtt("3.1.1", "MQTT-4.3.2-1", "MQTT-2.3.1-4", "MQTT-3.8.4-1", "MQTT-3.8.4-2")
@pytest.mark.mqtt("5.0", "MQTT-4.3.2-1", "MQTT-2.2.1-4", "MQTT-3.8.4-1", "MQTT-3.8.4-2")
async def test_a_message_to_a_device_is_done_at_its_puback(listener: MqttListener) -> None:
    with pytest.raises(DeviceAbsentError):
        send(listener, "reboot", b"now")
    client = await Client.logged_in(listener.port)
    with pytest.raises(DeviceAbsentError, match="does not subscribe to down/reboot"):
        await send(listener, "reboot", b"now")
    assert await client.asks(subscribe(3, ("down/#", 1))) == encode_suback(3, [1])
    sent = send(listener, "reboot", b"now")
    lost = send(listener, "reboot", b"again")
    assert await client.next() == encode_publish(Publish("down/reboot", b"now", 1, 1))
    assert not sent.done()
    client.writer.write(PUBACK_1)
    await sent
    await client.close()
    with pytest.raises(DeviceGoneError):
        await lost


async def test_a_message_goes_to_the_newest_connection_of_a_device_that_listens(listener: MqttListener) -> None:
    older = await Client.logged_in(listener.port, client_id="older")
    newer = await Client.logged_in(listener.port, client_id="newer")
    await Client.logged_in(listener.port, client_id="deaf")
    for client in (older, newer):
        await client.asks(subscribe(1, ("down/#", 0)))
    await send(listener, "go", b"1")
    assert await newer.next() == encode_publish(Publish("down/go", b"1"))
    await newer.close()
    await until(lambda: listener.counters.connections == 2)
    await send(listener, "go", b"2")
    assert await older.next() == encode_publish(Publish("down/go", b"2"))


async def test_a_revoked_credential_ends_its_connections(world: World, listener: MqttListener) -> None:
    pump, tank = await Client.logged_in(listener.port), await Client.logged_in(listener.port, "tank", "network")
    world.registry.apply(RegistryChange("demo", 1, 2, gone_devices=(1,)))
    listener.recheck()
    assert await pump.ended() == b""
    assert await is_served(tank)


async def test_closing_answers_what_came_and_then_ends_the_connections(world: World) -> None:
    async with world.listening() as listener:
        client = await Client.logged_in(listener.port)
        world.bus.hold()
        client.writer.write(publish())
        await world.bus.reached(1)
        closing = asyncio.create_task(listener.close())
        await asyncio.sleep(0)
        assert not closing.done()
        world.bus.release()
        assert await client.ended() == PUBACK_1
        await closing
        with pytest.raises(ConnectionRefusedError):
            await Client.open(listener.port)


async def test_a_port_in_use_is_named_with_a_remedy(world: World, listener: MqttListener) -> None:
    with pytest.raises(UserError) as caught:
        await world.listener(listener.port).start()
    assert f"127.0.0.1:{listener.port}: the port is in use" in caught.value.message
    assert "another port" in caught.value.remedy


async def test_an_address_of_no_interface_is_named(world: World) -> None:
    elsewhere = world.listener()
    elsewhere.host = "192.0.2.1"
    with pytest.raises(UserError, match=r"192\.0\.2\.1"):
        await elsewhere.start()


def make_certificate(folder: Path) -> dict[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / "tls.cert", folder / "tls.key"
    cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return {"tls_cert": str(cert_file), "tls_key": str(key_file)}


async def test_tls_carries_the_same(world: World, tmp_path: Path) -> None:
    files = make_certificate(tmp_path)
    context = ssl.create_default_context(cafile=files["tls_cert"])
    async with world.listening(**files) as listener:
        client = await Client.logged_in(listener.port, context=context)
        assert await client.asks(publish(b"x" * 100_000)) == PUBACK_1
        plain = await Client.open(listener.port)
        plain.writer.write(encode_connect(Connect("c")))
        await plain.ended()
        assert await is_served(client)
    assert world.bus.records[0].payload == b"x" * 100_000


async def test_a_certificate_that_cannot_be_used_is_named(world: World, tmp_path: Path) -> None:
    files = make_certificate(tmp_path)
    with pytest.raises(UserError, match=r"missing\.key"):
        await world.listener(tls_cert=files["tls_cert"], tls_key=str(tmp_path / "missing.key")).start()
    with pytest.raises(UserError, match="cannot use"):
        await world.listener(tls_cert=files["tls_key"], tls_key=files["tls_key"]).start()


async def test_a_client_that_does_not_let_go_is_cut_at_close(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "WRITE_BYTES_MAX", 64 * 1024 * 1024)
    monkeypatch.setattr("edge.listeners.connections.CLOSE_S", 0.05)
    async with world.listening() as listener:
        client = await Client.logged_in(listener.port)
        await client.asks(subscribe(1, ("down/#", 0)))
        for _ in range(60):
            await send(listener, "set", b"x" * PAYLOAD_BYTES_MAX)
        await listener.close()
        await until(lambda: not listener.counters.connections)


async def test_topics_decide_what_is_an_event_or_an_alarm(world: World) -> None:
    rules: list[tuple[str, PriorityName]] = [("alarm/#", "alarm"), ("+/door", "event"), ("alarm/test", "telemetry")]
    priorities = tuple(PriorityConfig((topic,), priority) for topic, priority in rules)
    async with world.listening(priorities=priorities) as listener:
        client = await Client.logged_in(listener.port)
        for topic in ("up", "hall/door", "alarm", "alarm/door", "alarm/test"):
            assert await client.asks(publish(topic=topic)) == PUBACK_1
    assert [(record.origin.topic, record.origin.priority.name) for record in world.bus.records] == [
        ("up", "TELEMETRY"),
        ("hall/door", "EVENT"),
        ("alarm", "ALARM"),
        ("alarm/door", "ALARM"),
        ("alarm/test", "ALARM"),
    ]
