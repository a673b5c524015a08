"""The listener at an existing broker, against a real mosquitto."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge.listeners.broker import listener as broker_listener
from edge.listeners.broker.config import BrokerConfig
from edge.listeners.broker.listener import BrokerListener, make_listener
from edge.listeners.listener import Shared
from edge.listeners.way import CommandRefusedError, DeviceAbsentError
from protocols.limits import PAYLOAD_BYTES_MAX
from protocols.messages import Command, Origin, Priority
from protocols.metadata import decode_metadata
from sync.bus.contract import BusRefusedError
from tests.contract.mosquitto import ANSWER_S, Mosquitto
from tests.edge.listeners.mqtt_world import World
from tidegate.console import UserError


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    task = asyncio.create_task(world.collector.run())
    yield world
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@pytest.fixture
async def mosquitto(tmp_path: Path) -> AsyncIterator[Mosquitto]:
    async with Mosquitto.running(tmp_path) as broker:
        yield broker


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_listener, "RETRY_FIRST_S", 0.05)
    monkeypatch.setattr(broker_listener, "RETRY_MAX_S", 0.1)


@pytest.fixture(params=["5", "3.1.1"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def made(world: World, port: int, folder: Path, **options: Any) -> BrokerListener:
    settings = {
        "name": "hall", "network": "quay", "host": "127.0.0.1", "port": port, "user": "gateway", "password": "secret",
        "templates": ["sensors/{serial}/up"], **options,
    }  # fmt: skip
    return make_listener(msgspec.convert(settings, BrokerConfig), Shared(world.registry, world.collector, folder))


@contextlib.asynccontextmanager
async def connected(world: World, port: int, folder: Path, **options: Any) -> AsyncIterator[BrokerListener]:
    listener = made(world, port, folder, **options)
    await listener.start()
    try:
        await until(lambda: listener.counters.connections == 1)
        yield listener
    finally:
        world.bus.release()
        await listener.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(ANSWER_S):
        while not condition():
            await asyncio.sleep(0.01)


def payloads(world: World) -> list[bytes]:
    return [record.payload for record in world.bus.records]


async def test_a_message_is_acknowledged_once_it_is_on_disk(world: World, mosquitto: Mosquitto, tmp_path: Path) -> None:
    async with connected(world, mosquitto.port, tmp_path, inflight_max=1) as listener:
        world.bus.hold()
        await mosquitto.publish("sensors/pump/up", b"1", b"2")
        await world.bus.reached(1)
        assert payloads(world) == [b"1"]  # the broker sends the next one when this is acknowledged, and not sooner
        world.bus.release()
        await until(lambda: payloads(world) == [b"1", b"2"])
        assert world.bus.records[0].origin == Origin("quay", "serial", "pump", "sensors/pump/up", "", "hall")
        await until(lambda: listener.counters.recorded == 2)
        assert listener.trouble == ""


async def test_what_was_not_acknowledged_comes_again(
    world: World, mosquitto: Mosquitto, tmp_path: Path, protocol: str
) -> None:
    async with connected(world, mosquitto.port, tmp_path, protocol=protocol) as listener:
        world.bus.failures.append(BusRefusedError("log_full", "no room"))
        await mosquitto.publish("sensors/pump/up", b"1")
        await until(lambda: listener.counters.recorded == 1)
        assert payloads(world) == [b"1", b"1"]
        assert listener.counters.refused == {"log_full": 1}
        assert listener.counters.connections_total == 2


async def test_what_came_while_the_gateway_was_away_comes_after(
    world: World, mosquitto: Mosquitto, tmp_path: Path, protocol: str
) -> None:
    async with connected(world, mosquitto.port, tmp_path, protocol=protocol):
        pass
    await mosquitto.publish("sensors/pump/up", *(b"%d" % number for number in range(50)))
    async with connected(world, mosquitto.port, tmp_path, protocol=protocol) as listener:
        await until(lambda: listener.counters.recorded == 50)
    assert payloads(world) == [b"%d" % number for number in range(50)]


async def test_a_broker_that_restarts(world: World, mosquitto: Mosquitto, tmp_path: Path, protocol: str) -> None:
    async with connected(world, mosquitto.port, tmp_path, protocol=protocol) as listener:
        await mosquitto.publish("sensors/pump/up", b"1")
        await until(lambda: listener.counters.recorded == 1)
        await mosquitto.stop()
        await until(lambda: "cannot be reached: Connection refused" in listener.trouble)
        assert listener.trouble.startswith(f"broker 127.0.0.1:{mosquitto.port} ")
        assert listener.counters.connections == 0
        await mosquitto.start()
        await until(lambda: listener.counters.connections == 1)
        assert listener.trouble == ""
        await mosquitto.publish("sensors/pump/up", b"2")
        await until(lambda: listener.counters.recorded == 2)
    assert payloads(world) == [b"1", b"2"]


async def test_a_broker_that_is_not_there_yet_is_no_error(world: World, tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path)
    listener = made(world, broker.port, tmp_path)
    await listener.start()
    assert listener.is_listening
    await until(lambda: "Connection refused" in listener.trouble)
    await broker.start()
    try:
        await until(lambda: listener.counters.connections == 1)
        assert listener.trouble == ""
    finally:
        await listener.close()
        await broker.stop()
    assert not listener.is_listening


async def test_wrong_credentials_are_told(world: World, mosquitto: Mosquitto, tmp_path: Path, protocol: str) -> None:
    listener = made(world, mosquitto.port, tmp_path, password="no", protocol=protocol)
    await listener.start()
    await until(lambda: "refuses the gateway: Not authorized; see user, password" in listener.trouble)
    assert listener.counters.connections == 0
    await listener.close()


async def test_topics_that_the_broker_does_not_allow_are_told(world: World, tmp_path: Path) -> None:
    # mosquitto grants each subscription and delivers nothing; a broker that refuses is played by its own plain MQTT.
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.write(b"\x20\x02\x00\x00")
        subscribe = await reader.read(4096)
        writer.write(b"\x90\x04" + subscribe[2:4] + b"\x01\x80")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with connected(world, port, tmp_path, protocol="3.1.1", templates=["a/{serial}", "b/{serial}"]) as listener:
        assert listener.trouble == f"broker 127.0.0.1:{port} does not allow b/+"
    server.close()
    await server.wait_closed()


async def test_what_is_not_for_us_is_counted_kept_and_does_not_come_again(
    world: World, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    await mosquitto.publish("dev-old/up", b"kept", retain=True)
    options = {"templates": ["dev-{serial}/up"], "protocol": "3.1.1"}
    async with connected(world, mosquitto.port, tmp_path, **options) as listener:
        await mosquitto.publish("other/up", b"not ours")
        await mosquitto.publish("dev-big/up", b"x" * (PAYLOAD_BYTES_MAX + 1))
        await mosquitto.publish(f"dev-{'x' * 100}/up", b"fits")
        await until(lambda: listener.counters.recorded == 1)
        assert listener.refusals.counts == {"retained": 1, "no_topic": 1, "payload_too_large": 1}
        assert [refused.data[:8] for refused in listener.refusals.last] == [b"kept", b"not ours", b"x" * 8]
        assert listener.trouble == ""


async def test_retained_messages_are_taken_where_that_is_wanted(
    world: World, mosquitto: Mosquitto, tmp_path: Path, protocol: str
) -> None:
    await mosquitto.publish("sensors/pump/up", b"kept", retain=True)
    async with connected(world, mosquitto.port, tmp_path, retained=True, protocol=protocol) as listener:
        await until(lambda: listener.counters.recorded == 1)


async def test_topics_without_a_device_are_of_whom_the_payload_says(
    world: World, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    rules = [{"topics": ["all/alarm"], "priority": "alarm"}]
    options = {"templates": ["all/+"], "codec": "cbor", "priorities": rules}
    async with connected(world, mosquitto.port, tmp_path, **options):
        await mosquitto.publish("all/alarm", b"1")
        await world.bus.reached(1)
    assert world.bus.records[0].origin == Origin("quay", "serial", "", "all/alarm", "cbor", "hall", Priority.ALARM)


async def test_what_a_message_says_beside_its_payload_is_its_metadata(
    world: World, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    async with connected(world, mosquitto.port, tmp_path):
        said = ("-D", "publish", "user-property", "site", "north", "-D", "publish", "content-type", "text/csv")
        await mosquitto.publish("sensors/pump/up", b"1", arguments=("-V", "5", *said))
        await world.bus.reached(1)
    assert decode_metadata(world.bus.batches[0].metadata[0]) == {"site": "north", "$content-type": "text/csv"}


class TestCommands:
    async def test_a_command_is_published_and_its_answer_recorded(
        self, world: World, mosquitto: Mosquitto, tmp_path: Path, protocol: str
    ) -> None:
        options = {
            "down": "sensors/{serial}/down/{command}",
            "responses": ["sensors/{serial}/response/+"],
            "protocol": protocol,
        }
        async with connected(world, mosquitto.port, tmp_path, **options) as listener:
            device = await mosquitto.subscriber("sensors/pump/down/#", 1, "-F", "%t %p")
            way = listener.way("serial", "pump")
            assert way is not None
            assert not way.confirms
            await way.send(Command("c-1", 1, "reboot", b"now", 0))
            async with asyncio.timeout(ANSWER_S):
                output, _ = await device.communicate()
            assert b"\nsensors/pump/down/reboot now\n" in output
            await mosquitto.publish("sensors/pump/response/c-1", b'{"ok":true}')
            await world.bus.reached(1)
            assert world.bus.records[0].origin == Origin(
                "quay", "serial", "pump", "sensors/pump/response/c-1", "response", "hall", Priority.EVENT
            )
            with pytest.raises(CommandRefusedError, match="down/#"):
                await way.send(Command("c-2", 1, "#", b"", 0))
            assert listener.way("mac", "pump") is None
            await mosquitto.stop()
            await until(lambda: listener.counters.connections == 0)
            assert listener.way("serial", "pump") is None
            with pytest.raises(DeviceAbsentError):
                await way.send(Command("c-3", 1, "reboot", b"", 0))

    async def test_without_a_topic_for_them_there_is_no_way(
        self, world: World, mosquitto: Mosquitto, tmp_path: Path
    ) -> None:
        async with connected(world, mosquitto.port, tmp_path) as listener:
            assert listener.way("serial", "pump") is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"templates": []}, "templates: at least one"),
        ({"templates": ["a/#/b"]}, "templates: 'a/#/b'"),
        ({"down": "down"}, "down: 'down' is not the topic of one device"),
        ({"tls_ca": "ca.pem"}, "tls: it must be true"),
        ({"tls_cert": "c.pem"}, "tls_cert and tls_key go together"),
        ({"user": ""}, "user: it is needed"),
    ],
)
def test_mistakes_in_the_configuration(options: dict[str, Any], said: str) -> None:
    settings = {"name": "hall", "network": "quay", "user": "gateway", "password": "secret", **options}
    with pytest.raises(msgspec.ValidationError, match=said):
        msgspec.convert(settings, BrokerConfig)


async def test_a_file_of_tls_that_cannot_be_used_is_named(world: World, tmp_path: Path) -> None:
    listener = made(world, 1, tmp_path, tls=True, tls_ca=str(tmp_path / "none.pem"))
    with pytest.raises(UserError, match=r"none\.pem"):
        await listener.start()
