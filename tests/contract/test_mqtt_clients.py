"""The clients that devices and people really use, against a real listener: paho-mqtt, mosquitto_pub, mosquitto_sub."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator

import gmqtt
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge.listeners.mqtt.listener import MqttListener
from edge.listeners.way import DeviceAbsentError
from protocols.metadata import decode_metadata
from sync.bus.contract import BusRefusedError
from tests.contract import mqtt_js
from tests.edge.listeners.mqtt_world import ANSWER_S, World, send, until


@pytest.fixture
async def world() -> World:
    return World()


@pytest.fixture
async def listener(world: World) -> AsyncIterator[MqttListener]:
    async with world.listening() as made:
        yield made


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.fail(f"{name} is missing: apt-get install mosquitto-clients")
    return found


async def start(name: str, port: int, *arguments: str, password: str = "pump-secret") -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        program(name), "-h", "127.0.0.1", "-p", str(port), "-u", "pump", "-P", password, *arguments,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def finished(process: asyncio.subprocess.Process, text: bytes = b"") -> tuple[int | None, str, str]:
    """Exit code, output and errors."""
    async with asyncio.timeout(ANSWER_S):
        output, errors = await process.communicate(text)
    return process.returncode, output.decode(), errors.decode()


async def test_mosquitto_pub_ends_when_the_record_is_safe(world: World, listener: MqttListener) -> None:
    world.bus.hold()
    process = await start("mosquitto_pub", listener.port, "-q", "1", "-t", "up", "-m", '{"temperature":71.5}')
    await world.bus.reached(1)
    assert process.returncode is None
    world.bus.release()
    code, _, errors = await finished(process)
    assert (code, errors) == (0, "")
    (record,) = world.bus.records
    assert record.payload == b'{"temperature":71.5}'
    assert (record.origin.alias_key, record.origin.alias, record.origin.topic) == ("serial", "pump", "up")


@pytest.mark.parametrize("qos", ["0", "1"])
async def test_mosquitto_pub_sends_many_lines_over_one_connection(
    world: World, listener: MqttListener, qos: str
) -> None:
    lines = [b'{"n":%d}' % number for number in range(500)]
    process = await start("mosquitto_pub", listener.port, "-q", qos, "-t", "up", "-l")
    code, _, errors = await finished(process, b"\n".join(lines) + b"\n")
    assert (code, errors) == (0, "")
    async with asyncio.timeout(ANSWER_S):
        while len(world.bus.records) < len(lines):
            await world.bus.reached(len(world.bus.batches) + 1)
    assert [record.payload for record in world.bus.records] == lines


async def test_mosquitto_pub_is_told_of_a_wrong_password(listener: MqttListener) -> None:
    code, _, errors = await finished(await start("mosquitto_pub", listener.port, "-t", "up", "-m", "x", password="no"))
    assert code != 0
    assert "not authorised" in errors.lower()


@pytest.mark.parametrize("version", ["311", "5"])
@pytest.mark.parametrize("qos", ["0", "1", "2"])
async def test_mosquitto_pub_speaks_both_versions_and_every_qos(
    world: World, listener: MqttListener, version: str, qos: str
) -> None:
    lines = [b'{"n":%d}' % number for number in range(50)]
    process = await start("mosquitto_pub", listener.port, "-V", version, "-q", qos, "-t", "up", "-l")
    code, _, errors = await finished(process, b"\n".join(lines) + b"\n")
    assert (code, errors) == (0, "")
    await until(lambda: len(world.bus.records) == len(lines))
    assert [record.payload for record in world.bus.records] == lines


async def test_what_mosquitto_pub_says_beside_the_payload_is_the_records_metadata(
    world: World, listener: MqttListener
) -> None:
    beside = ["user-property", "site", "quay", "-D", "publish", "correlation-data", "c-7"]
    process = await start("mosquitto_pub", listener.port, "-V", "5", "-D", "publish", *beside, "-t", "up", "-m", "1")
    assert (await finished(process))[0] == 0
    await until(lambda: len(world.bus.records) == 1)
    assert decode_metadata(world.bus.records[0].metadata) == {"site": "quay", "$correlation": "c-7"}


@pytest.mark.parametrize("version", ["311", "5"])
async def test_mosquitto_sub_gets_a_command_and_says_that_it_has_it(listener: MqttListener, version: str) -> None:
    arguments = ("-V", version, "-q", "1", "-t", "down/#", "-v", "-C", "2")
    process = await start("mosquitto_sub", listener.port, *arguments)
    await sent_to_pump(listener, "reboot", b"now")
    await sent_to_pump(listener, "set", b"plain")
    code, output, _ = await finished(process)
    assert (code, output) == (0, "down/reboot now\ndown/set plain\n")


async def test_mosquitto_sub_sees_the_id_of_a_command_and_where_to_answer(listener: MqttListener) -> None:
    arguments = ("-V", "5", "-q", "1", "-t", "down/#", "-C", "1", "-F", "%p %D %R")
    process = await start("mosquitto_sub", listener.port, *arguments)
    await sent_to_pump(listener, "reboot", b"now", command_id="c-17")
    code, output, _ = await finished(process)
    assert (code, output) == (0, "now c-17 up/response\n")


async def test_mosquitto_sub_that_was_away_finds_its_session(listener: MqttListener) -> None:
    session = ("-i", "kept", "-c", "-q", "1", "-t", "down/#")
    assert (await finished(await start("mosquitto_sub", listener.port, *session, "-E")))[0] == 0
    process = await start("mosquitto_sub", listener.port, *session, "-C", "1")
    await sent_to_pump(listener, "reboot", b"now")
    assert (await finished(process))[:2] == (0, "now\n")


async def test_mosquitto_sub_is_told_that_other_topics_are_not_its_own(listener: MqttListener) -> None:
    _, _, errors = await finished(await start("mosquitto_sub", listener.port, "-t", "#", "-C", "1"))
    assert "denied" in errors


async def sent_to_pump(listener: MqttListener, name: str, payload: bytes, *, command_id: str = "") -> None:
    """Sends as soon as the device has subscribed; it must acknowledge."""
    deadline = listener.network.now_ms() + 60_000
    async with asyncio.timeout(ANSWER_S):
        while True:
            try:
                await send(listener, name, payload, command_id=command_id, deadline=deadline)
            except DeviceAbsentError:
                await asyncio.sleep(0.01)
            else:
                return


class Paho:
    """paho's client with its own thread; its callbacks set what the test awaits."""

    def __init__(self, port: int, *, clean_session: bool | None = True, v5: bool = False) -> None:
        self.connected = threading.Event()
        self.subscribed = threading.Event()
        self.got = threading.Event()
        self.reason = ""
        self.granted: list[int] = []
        self.messages: list[tuple[str, bytes, int]] = []
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2,
            "paho",
            clean_session=None if v5 else clean_session,
            protocol=MQTTProtocolVersion.MQTTv5 if v5 else MQTTProtocolVersion.MQTTv311,
        )
        self.client.username_pw_set("pump", "pump-secret")
        self.client.on_connect = self._on_connect
        self.client.on_subscribe = self._on_subscribe
        self.client.on_message = self._on_message
        self._port = port

    async def __aenter__(self) -> Paho:
        await asyncio.to_thread(self.client.connect, "127.0.0.1", self._port, 5)
        self.client.loop_start()
        await waited(self.connected)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.client.disconnect()
        await asyncio.to_thread(self.client.loop_stop)

    def _on_connect(
        self, client: paho.Client, userdata: object, flags: object, reason: object, properties: object
    ) -> None:
        self.reason = str(reason)
        self.connected.set()

    def _on_subscribe(
        self, client: paho.Client, userdata: object, mid: int, reasons: list[ReasonCode], properties: object
    ) -> None:
        self.granted = [reason.value for reason in reasons]
        self.subscribed.set()

    def _on_message(self, client: paho.Client, userdata: object, message: paho.MQTTMessage) -> None:
        self.messages.append((message.topic, bytes(message.payload), message.qos))
        self.got.set()


async def waited(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, ANSWER_S)


async def test_paho_publishes_and_hears_when_it_is_safe(world: World, listener: MqttListener) -> None:
    async with Paho(listener.port) as device:
        assert device.reason == "Success"
        world.bus.hold()
        published = device.client.publish("up", b'{"n":0}', qos=1)
        await world.bus.reached(1)
        assert not published.is_published()
        more = [device.client.publish("up", b'{"n":%d}' % number, qos=1) for number in range(1, 1000)]
        world.bus.release()
        for info in (published, *more):
            await asyncio.to_thread(info.wait_for_publish, ANSWER_S)
    assert [record.payload for record in world.bus.records] == [b'{"n":%d}' % number for number in range(1000)]


@pytest.mark.parametrize("v5", [False, True])
async def test_paho_subscribes_gets_a_message_and_acknowledges_it(listener: MqttListener, v5: bool) -> None:
    async with Paho(listener.port, v5=v5) as device:
        device.client.subscribe(
            [("down/#", SubscribeOptions(1)), ("others/#", SubscribeOptions(1))]
            if v5
            else [("down/#", 1), ("others/#", 1)]
        )
        await waited(device.subscribed)
        assert device.granted == [1, 0x87 if v5 else 0x80]
        await asyncio.wait_for(send(listener, "set", b'{"speed":3}'), ANSWER_S)
        await waited(device.got)
        assert device.messages == [("down/set", b'{"speed":3}', 1)]


async def test_paho_sends_again_what_was_not_safe_when_it_was_cut_off(world: World, listener: MqttListener) -> None:
    async with Paho(listener.port, clean_session=False) as device:
        device.client.reconnect_delay_set(min_delay=1, max_delay=1)
        world.bus.failures.append(BusRefusedError("log-full", "2 GB of 2 GB"))
        published = device.client.publish("up", b"once more", qos=1)
        await asyncio.to_thread(published.wait_for_publish, ANSWER_S)
        assert published.is_published()
    assert [record.payload for record in world.bus.records] == [b"once more", b"once more"]
    assert world.collector.counters.recorded == 1


# ---- gmqtt


@pytest.mark.parametrize("version", [4, 5])
async def test_gmqtt_says_something_and_gets_a_command(world: World, listener: MqttListener, version: int) -> None:
    got: asyncio.Future[tuple[str, bytes, dict[str, object]]] = asyncio.get_running_loop().create_future()
    subscribed = asyncio.Event()

    async def on_message(
        client: gmqtt.Client, topic: str, payload: bytes, qos: int, properties: dict[str, object]
    ) -> int:
        got.set_result((topic, payload, properties))
        return 0

    device = gmqtt.Client("gmqtt", clean_session=True)
    device.set_auth_credentials("pump", "pump-secret")
    device.on_message = on_message
    device.on_subscribe = lambda *_: subscribed.set()
    async with asyncio.timeout(ANSWER_S):
        await device.connect("127.0.0.1", listener.port, version=version)
        device.subscribe("down/#", qos=1)
        await subscribed.wait()
        for qos in (0, 1, 2):
            device.publish("up", b"%d" % qos, qos=qos, **({"user_property": ("site", "quay")} if version == 5 else {}))
        await until(lambda: len(world.bus.records) == 3)
        deadline = listener.network.now_ms() + 60_000
        await send(listener, "reboot", b"now", command_id="c-17", deadline=deadline)
        topic, payload, properties = await got
        await device.disconnect()
    assert (topic, payload) == ("down/reboot", b"now")
    assert sorted(record.payload for record in world.bus.records) == [b"0", b"1", b"2"]
    if version == 5:
        assert properties["correlation_data"] in ([b"c-17"], [[b"c-17"]], b"c-17")
        assert {decode_metadata(record.metadata)["site"] for record in world.bus.records} == {"quay"}


# ---- mqtt.js


@pytest.mark.parametrize("version", ["4", "5"])
@pytest.mark.parametrize("transport", ["tcp", "websocket"])
async def test_mqtt_js_says_something_and_answers_a_command(world: World, transport: str, version: str) -> None:
    async with world.listening(transport=transport) as listener:
        url = f"{'mqtt' if transport == 'tcp' else 'ws'}://127.0.0.1:{listener.port}"
        process = await mqtt_js.start(url, version, "pump", "pump-secret", '{"from":"mqtt.js"}')
        await sent_to_pump(listener, "reboot", b"now", command_id="c-17")
        async with asyncio.timeout(ANSWER_S):
            output, errors = await process.communicate()
    assert (process.returncode, errors) == (0, b"")
    assert output.decode() == f"down/reboot{'/c-17' if version == '4' else ''} now c-17\n"
    assert [(record.origin.alias, record.origin.topic, record.payload) for record in world.bus.records] == [
        ("pump", "up", b'{"from":"mqtt.js"}'),
        ("pump", "up/response/c-17", b'{"ok":true}'),
    ]
