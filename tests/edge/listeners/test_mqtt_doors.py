"""How devices come in to the MQTT listener: WebSocket, client certificates, rates; and what they are told there."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import websockets
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from edge.listeners.mqtt.listener import MqttListener
from protocols.limits import MQTT_PACKET_BYTES_MAX
from protocols.mqtt.connect import Connect, decode_connack, encode_connect
from protocols.mqtt.packets import Ack, Disconnect, Publish, Subscribe, Subscription, encode_publish
from protocols.mqtt.properties import Properties
from protocols.mqtt.reasons import Reason
from protocols.mqtt.wire import PINGREQ_PACKET, PINGRESP_PACKET, PUBACK, V5
from sync.registry import Registry
from tests.edge.listeners.mqtt_client import Packets
from tests.edge.listeners.mqtt_world import Client, World, subscribe, until

pytestmark = pytest.mark.servers

CONNECT = encode_connect(Connect("w", True, 0, "pump", b"pump-secret"))
MQTT = [Subprotocol("mqtt")]


@pytest.fixture
async def world() -> World:
    return World()


@pytest.fixture
async def listener(world: World) -> AsyncIterator[MqttListener]:
    async with world.listening() as made:
        yield made


# ---- WebSocket


def browser(port: int, protocols: list[Subprotocol] | None = MQTT) -> connect:
    return connect(f"ws://127.0.0.1:{port}/mqtt", subprotocols=protocols, proxy=None)


async def read(page: ClientConnection, size: int) -> bytes:
    data = b""
    while len(data) < size:
        frame = await asyncio.wait_for(page.recv(), 10)
        assert isinstance(frame, bytes)
        data += frame
    return data


@pytest.mark.mqtt("3.1.1", "MQTT-6.0.0-1", "MQTT-6.0.0-2", "MQTT-6.0.0-3", "MQTT-6.0.0-4")
@pytest.mark.mqtt("5.0", "MQTT-6.0.0-1", "MQTT-6.0.0-2", "MQTT-6.0.0-3", "MQTT-6.0.0-4")
async def test_mqtt_over_websocket_whatever_the_frames(world: World) -> None:
    async with world.listening(transport="websocket") as listener:
        async with browser(listener.port) as page:
            assert page.subprotocol == "mqtt"
            stream = CONNECT + encode_publish(Publish("up", b"x" * 100_000, 1, 9)) + PINGREQ_PACKET
            for start in range(0, 20, 7):
                await page.send(stream[start : start + 7])
            await page.send(stream[21:])
            answers = await read(page, 10)
            assert answers.startswith(b"\x20\x02\x00\x00")
            assert {answers[4:6], answers[6:10]} in (
                {PINGRESP_PACKET, b"\x40\x02\x00\x09"},
                {answers[4:6], answers[6:]},
            )
        await until(lambda: not listener.counters.connections)
    (record,) = world.bus.records
    assert (record.origin.alias, record.payload) == ("pump", b"x" * 100_000)


@pytest.mark.mqtt("3.1.1", "MQTT-6.0.0-1")
@pytest.mark.mqtt("5.0", "MQTT-6.0.0-1")
async def test_text_frames_and_other_subprotocols_are_turned_away(world: World) -> None:
    async with world.listening(transport="websocket") as listener:
        async with browser(listener.port) as page:
            await page.send(CONNECT)
            await read(page, 4)
            await page.send("text")
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await read(page, 1)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1003
        for protocols in (None, [Subprotocol("chat")]):
            with pytest.raises(websockets.InvalidStatus):
                async with browser(listener.port, protocols):
                    pass


async def test_a_websocket_is_closed_with_what_the_server_refuses(world: World) -> None:
    async with world.listening(transport="websocket") as listener:
        async with browser(listener.port) as page:
            await page.send(encode_connect(Connect("w", user_name="pump", password=b"wrong")))
            assert await read(page, 4) == b"\x20\x02\x00\x05"
            with pytest.raises(websockets.ConnectionClosedOK):
                await read(page, 1)
        stranger = await Client.open(listener.port)
        stranger.writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await stranger.ended()).startswith(b"HTTP/1.1 426")


@pytest.mark.parametrize("behind", [b"GET / HTTP/1.1\r\n\r\n", b"\xff\xff", b"\x81\x01x"])
@pytest.mark.parametrize(("key", "status"), [(b"dGhlIHNhbXBsZSBub25jZQ==", b"101"), (b"short", b"400")])
async def test_what_comes_behind_a_handshake_before_its_answer_waits_for_it(
    world: World, key: bytes, status: bytes, behind: bytes
) -> None:
    request = (
        b"GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n"
    )
    async with world.listening(transport="websocket") as listener:
        stranger = await Client.open(listener.port)
        stranger.writer.write(request + behind)
        assert (await stranger.ended()).startswith(b"HTTP/1.1 " + status)


# ---- certificates


class Authority:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "site authority")])
        self.certificate = self._signed(self.name, self.key, [], is_authority=True)
        self.file = folder / "ca.pem"
        self.file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, *, common_name: str = "", names: list[x509.GeneralName]) -> tuple[str, str]:
        """Certificate and key files."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else [])
        certificate = self._signed(subject, key, names)
        cert_file, key_file = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        form = serialization.PrivateFormat.PKCS8
        key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
        return str(cert_file), str(key_file)

    def _signed(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        names: list[x509.GeneralName],
        is_authority: bool = False,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=not list(subject))
        return builder.sign(self.key, hashes.SHA256())


async def test_a_client_certificate_names_the_device(world: World, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    here = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    cert, key = authority.issue("server", common_name="gateway", names=here)
    pump = authority.issue("pump", common_name="pump", names=[])
    tank = authority.issue("tank", names=[x509.DNSName("tank")])
    options = {"tls_cert": cert, "tls_key": key, "tls_client_ca": str(authority.file)}
    async with world.listening(**options) as listener:
        for files, user, code in ((pump, None, 0), (tank, None, 0), (pump, "pump", 0), (pump, "tank", 5)):
            context = ssl.create_default_context(cafile=str(authority.file))
            context.load_cert_chain(*files)
            client = await Client.open(listener.port, context=context)
            assert await client.asks(encode_connect(Connect("c", user_name=user))) == bytes((0x20, 2, 0, code))
            if not code:
                assert await client.asks(encode_publish(Publish("up", b"1", 1, 1))) == b"\x40\x02\x00\x01"
            await client.close()
        stranger = await Client.open(listener.port, context=ssl.create_default_context(cafile=str(authority.file)))
        stranger.writer.write(CONNECT)
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await stranger.next()
        await stranger.close()
    assert [record.origin.alias for record in world.bus.records] == ["pump", "tank", "pump"]


# ---- rates


async def test_a_device_over_its_rate_is_read_no_faster_and_loses_nothing(world: World) -> None:
    async with world.listening(messages_per_s_max=10) as listener:
        fast, other = await Client.logged_in(listener.port), await Client.logged_in(listener.port, "tank", "network")
        for start in (1, 51):
            packets = [encode_publish(Publish("up", b"%d" % each, 1, each)) for each in range(start, start + 50)]
            fast.writer.write(b"".join(packets))
            if start == 1:
                await fast.reader.readexactly(200)  # one read is taken whole
        await asyncio.sleep(0.05)  # nothing tells that nothing comes
        assert len(world.bus.records) == 50
        assert await other.asks(PINGREQ_PACKET) == PINGRESP_PACKET
        for _ in range(5):
            listener._turn(asyncio.get_running_loop())
        await fast.reader.readexactly(200)
    assert [record.payload for record in world.bus.records] == [b"%d" % each for each in range(1, 101)]


# ---- what a client is told


@pytest.mark.mqtt("5.0", "section 3.2.2.3", "MQTT-3.2.0-1", "MQTT-3.1.4-5")
async def test_the_answer_to_a_connect_says_what_the_server_takes(listener: MqttListener) -> None:
    connack = (await Packets.connect(listener.port)).connack
    assert connack.reason is Reason.SUCCESS
    limits = connack.properties
    assert limits.packet_bytes_max == MQTT_PACKET_BYTES_MAX
    assert limits.receive_max
    assert limits.topic_alias_max
    everything = (limits.qos_max, limits.retain_available, limits.wildcards_available, limits.shared_available)
    assert everything == (None, None, None, None)  # nothing is missing


@pytest.mark.mqtt("3.1.1", "MQTT-3.1.4-4", "MQTT-3.2.2-4", "MQTT-3.2.2-5")
@pytest.mark.mqtt("5.0", "MQTT-3.1.4-2", "MQTT-3.2.2-7")
@pytest.mark.parametrize(
    ("password", "registry", "reason"),
    [("wrong", None, Reason.NOT_AUTHORIZED), ("any", Registry("demo"), Reason.SERVER_UNAVAILABLE)],
)
async def test_a_refused_login_says_why(password: str, registry: Registry | None, reason: Reason) -> None:
    async with World(registry=registry).listening() as listener:
        device = await Packets.connect(listener.port, password=password)
        assert (device.connack.reason, device.connack.session_present) == (reason, False)
        assert await device.client.ended() == b""


@pytest.mark.mqtt("3.1.1", "MQTT-3.1.2-1", "MQTT-3.1.2-2")
@pytest.mark.mqtt("5.0", "MQTT-3.1.2-1", "MQTT-3.1.2-2", "MQTT-4.12.0-1")
@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (CONNECT.replace(b"MQTT\x04", b"MQTT\x06"), b"\x20\x02\x00\x01"),
        (CONNECT.replace(b"MQTT\x04", b"MQTX\x04"), b""),
        (encode_connect(Connect("c", version=V5)).replace(b"MQTT\x05", b"MQTT\x07"), b"\x20\x02\x00\x01"),
    ],
)
async def test_another_version_is_told_so(listener: MqttListener, data: bytes, answer: bytes) -> None:
    client = await Client.open(listener.port)
    client.writer.write(data)
    assert await client.ended() == answer


@pytest.mark.mqtt("5.0", "MQTT-4.12.0-1", "section 4.12")
async def test_an_authentication_method_is_refused_by_its_reason(listener: MqttListener) -> None:
    device = await Packets.connect(listener.port, auth_method="SCRAM-SHA-1")
    assert device.connack.reason is Reason.BAD_AUTHENTICATION_METHOD
    assert listener.refusals.counts == {"auth_method": 1}


@pytest.mark.mqtt("5.0", "MQTT-3.1.4-1", "section 4.13")
async def test_a_connect_that_is_wrong_is_told_why(listener: MqttListener) -> None:
    client = await Client.open(listener.port)
    body = encode_connect(Connect("c", version=V5, properties=Properties(receive_max=9)))
    client.writer.write(body.replace(b"\x21\x00\x09", b"\x21\x00\x00"))
    answer = await client.ended()
    assert decode_connack(answer[2:], V5).reason is Reason.PROTOCOL_ERROR


@pytest.mark.mqtt("5.0", "MQTT-4.13.1-1", "section 4.13", "MQTT-3.14.0-1")
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xf0\x00", Reason.PROTOCOL_ERROR),
        (b"\xc1\x00", Reason.MALFORMED_PACKET),
        (b"\x30\x06\x00\x02u+\x00x", Reason.TOPIC_NAME_INVALID),
        (b"\x30\xff\xff\xff\x7f", Reason.PACKET_TOO_LARGE),
        (b"\x36\x07\x00\x02up\x00\x01\x00", Reason.MALFORMED_PACKET),
        (CONNECT, Reason.PROTOCOL_ERROR),
    ],
)
async def test_what_is_wrong_is_said_before_the_connection_ends(
    listener: MqttListener, data: bytes, reason: Reason
) -> None:
    device = await Packets.connect(listener.port)
    device.client.writer.write(data)
    assert await device.hears(Disconnect) == Disconnect(reason)
    assert await device.client.ended() == b""


@pytest.mark.mqtt("5.0", "MQTT-3.3.4-7", "MQTT-3.3.4-8", "section 4.9")
async def test_more_on_its_way_than_allowed_ends_the_connection(world: World, listener: MqttListener) -> None:
    device = await Packets.connect(listener.port)
    allowed = device.connack.properties.receive_max
    assert allowed
    world.bus.hold()
    flood = [encode_publish(Publish("up", b"", 1, each % 65_535 + 1), V5) for each in range(allowed + 1000)]
    listener.collector.add = lambda *_, **__: None  # type: ignore[method-assign]  # nothing is answered
    device.client.writer.write(b"".join(flood))
    for turn in range(1, 9):
        await until(lambda turn=turn: bool(listener.refusals.counts) or listener.counters.bytes_in > turn)  # type: ignore[misc]
        for connection in listener.connections:
            connection._release(2)  # as if it were read on, whatever waits
    await until(lambda: listener.refusals.counts == {"receive_maximum": 1})
    assert await device.hears(Disconnect) == Disconnect(Reason.RECEIVE_MAXIMUM_EXCEEDED)


@pytest.mark.mqtt("3.1.1", "MQTT-3.1.2-24")
@pytest.mark.mqtt("5.0", "MQTT-3.1.2-22", "section 3.1.2.10")
async def test_a_silent_client_is_told_so(listener: MqttListener) -> None:
    device = await Packets.connect(listener.port, keep_alive_s=2)
    for _ in range(5):
        listener.wheel.turn()
    assert await device.hears(Disconnect) == Disconnect(Reason.KEEP_ALIVE_TIMEOUT)


@pytest.mark.mqtt("5.0", "section 3.14", "MQTT-3.14.4-1", "MQTT-3.14.4-2")
async def test_a_gateway_that_stops_says_so(world: World) -> None:
    async with world.listening() as listener:
        device = await Packets.connect(listener.port)
        closing = asyncio.create_task(listener.close())
        assert await device.hears(Disconnect) == Disconnect(Reason.SERVER_SHUTTING_DOWN)
        await device.is_lost()
        await closing


@pytest.mark.mqtt("3.1.1", "MQTT-3.1.4-5")
async def test_what_comes_with_the_connect_is_taken_once_it_is_accepted(world: World, listener: MqttListener) -> None:
    client = await Client.open(listener.port)
    client.writer.write(CONNECT + subscribe(1, ("down/#", 1)) + encode_publish(Publish("up", b"1", 1, 1)))
    assert [(await client.next())[0] >> 4 for _ in range(3)] == [2, 9, 4]


async def test_a_response_topic_and_requests_are_the_devices_own_affair(listener: MqttListener) -> None:
    device = await Packets.connect(listener.port, wants_response_information=1, wants_problems=0)
    assert device.connack.properties.response_information is None
    device.says(Subscribe(1, (Subscription("up", 1),)))
    assert await device.hears(list) == [Reason.NOT_AUTHORIZED]
    device.says(Publish("up", b"", 1, 1))
    assert await device.hears(Ack) == Ack(PUBACK, 1)
