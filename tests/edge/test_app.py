"""The gateway as a whole, in this process: real disk, bus, sockets and link."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import msgspec
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edge.app import run_gateway
from edge.config import BusConfig, LinkConfig, StatusConfig
from edge.data_folder import running
from edge.recorder import Recorder
from edge.resolver import LocalResolver
from edge.status.commands import CommandsShown
from protocols.batch import encode_records
from protocols.messages import Command, CommandState, Priority
from sync.bus.zeromq import ZeroMqBus
from sync.registry import Alias, Device, RegistryChange
from tests.edge.cloud import SiteCloud
from tests.edge.site import PATIENCE_S, RunningSite, Site, digest
from tests.edge.test_recorder import batch
from tidegate.console import UserError

pytestmark = pytest.mark.servers


@pytest.fixture
async def site(tmp_path: Path) -> Site:
    made = Site(tmp_path)
    await made.furnish()
    return made


@contextlib.asynccontextmanager
async def device(
    running: RunningSite, on_message: Callable[[paho.MQTTMessage], None] = lambda _: None
) -> AsyncIterator[paho.Client]:
    """The pump, connected; it subscribes to what is sent to it."""
    loop, subscribed = asyncio.get_running_loop(), asyncio.Event()
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="pump")
    client.username_pw_set("pump", "pump-secret")
    client.on_connect = lambda *_: client.subscribe("down/#", 1)
    client.on_subscribe = lambda *_: loop.call_soon_threadsafe(subscribed.set)
    client.on_message = lambda _client, _data, message: on_message(message)
    client.connect("127.0.0.1", running.mqtt_port)
    client.loop_start()
    try:
        async with asyncio.timeout(PATIENCE_S):
            await subscribed.wait()
        yield client
    finally:
        client.disconnect()
        client.loop_stop()


EVENTS = ("connected", "disconnected", "the gateway was started again", "connected")
"""What is recorded of a device that was there twice."""


async def send(client: paho.Client, payload: bytes, topic: str = "up") -> None:
    """Returns with the PUBACK; the gateway runs on this thread's loop, which goes on."""
    await asyncio.to_thread(client.publish(topic, payload, 1).wait_for_publish, PATIENCE_S)


async def refusal(site: Site) -> UserError:
    """What keeps a gateway from starting."""
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(UserError) as error:
            await run_gateway(site.config, asyncio.Event())
    return error.value


async def test_without_a_cloud_it_records_at_once(site: Site) -> None:
    async with site.gateway() as gateway, device(gateway) as pump:
        await send(pump, b'{"temperature":71.5}')
        seen = await gateway.until(lambda seen: seen.resolver.messages == 1)
        assert (seen.totals.logged, seen.totals.pending, seen.closed) == (2, 2, True), "that it came is an event"
        assert (seen.gateway, seen.project, seen.registry.revision) == ("quay-1", "demo", 7)
        assert seen.link.state != "up"
        assert (await gateway.http.get("/readyz")).status_code == 200


async def test_with_a_cloud_the_backlog_drains_and_the_accounting_closes(site: Site) -> None:
    async with site.gateway() as gateway, device(gateway) as pump:
        for number in range(20):
            await send(pump, b'{"n":%d}' % number)
    cloud = SiteCloud(site.data_dir)
    async with cloud.serving() as url:
        site.config = msgspec.structs.replace(site.config, link=LinkConfig(url=url))
        async with site.gateway() as gateway, device(gateway) as pump:
            await send(pump, b'{"n":20}')
            seen = await gateway.until(lambda seen: seen.totals.accepted == 21 + len(EVENTS))
            assert (seen.totals.pending, seen.closed, seen.link.state) == (0, True, "up")
    assert cloud.payloads.count(b'{"n":20}') == 1
    assert sorted(cloud.payloads) == sorted(b'{"n":%d}' % number for number in range(21))


async def test_a_change_of_the_registry_holds_at_once_and_after_a_restart(site: Site) -> None:
    cloud = SiteCloud(site.data_dir)
    async with cloud.serving() as url:
        site.config = msgspec.structs.replace(site.config, link=LinkConfig(url=url))
        async with site.gateway() as gateway, device(gateway) as pump:
            gone = asyncio.Event()
            loop = asyncio.get_running_loop()
            pump.on_disconnect = lambda *_: loop.call_soon_threadsafe(gone.set)
            new = Device(1, "site", "pump", (Alias("quay", "serial", "pump"),), None, digest("another"))
            cloud.pushed.put_nowait(RegistryChange("demo", 7, 8, devices=(new,)))
            async with asyncio.timeout(PATIENCE_S):
                await gone.wait()
            seen = await gateway.accounting()
            assert seen.registry.revision == 8
            assert seen.turned_away["revoked"] == 1
    async with site.gateway() as gateway:
        assert (await gateway.accounting()).registry.revision == 8


async def test_a_change_that_skips_one_brings_a_snapshot(site: Site) -> None:
    cloud = SiteCloud(site.data_dir)
    cloud.snapshot = msgspec.structs.replace(cloud.snapshot, revision=12)
    async with cloud.serving() as url:
        site.config = msgspec.structs.replace(site.config, link=LinkConfig(url=url))
        async with site.gateway() as gateway:
            cloud.pushed.put_nowait(RegistryChange("demo", 10, 11))
            await gateway.until(lambda seen: seen.registry.revision == 12)
    assert cloud.asked == [7, 0]


async def test_a_command_is_delivered_when_the_device_has_it(site: Site) -> None:
    cloud, came = SiteCloud(site.data_dir), []

    async def told(command_id: str) -> tuple[CommandState, str]:
        """What the cloud is told of it next; it confirms that."""
        async with asyncio.timeout(PATIENCE_S):
            while (progress := await cloud.progressed.get()).command_id != command_id:
                pass
        return progress.state, progress.text

    async with cloud.serving() as url:
        site.config = msgspec.structs.replace(site.config, link=LinkConfig(url=url))
        deadline = 4_000_000_000_000
        async with site.gateway() as gateway:
            await gateway.until(lambda seen: seen.link.state == "up")
            cloud.to_send.put_nowait(Command("c1", 1, "reboot", b"now", deadline))
            assert await told("c1") == (CommandState.SENT, "")
            async with device(gateway, lambda message: came.append((message.topic, message.payload))):
                assert await told("c1") == (CommandState.DELIVERED, "")
                assert came == [("down/reboot", b"now")]
            await gateway.until(lambda seen: seen.listeners[0].connections == 0)
            cloud.to_send.put_nowait(Command("c2", 1, "reboot", b"", 1))
            while (heard := await told("c2"))[0] is CommandState.SENT:
                pass
            assert heard == (CommandState.EXPIRED, "its deadline had passed when it came")
            cloud.to_send.put_nowait(Command("c3", 1, "reboot", b"", deadline))
            assert await told("c3") == (CommandState.SENT, "")
            shown = await gateway.get("/commands", CommandsShown)
    assert [(one.id, one.device, one.state, one.waits) for one in shown.commands] == [
        ("c3", "quay:serial:pump", "sent", True),
        ("c2", "quay:serial:pump", "expired", False),
        ("c1", "quay:serial:pump", "delivered", False),
    ]


async def test_who_comes_and_goes_and_what_is_answered_are_events_in_the_log(site: Site) -> None:
    cloud = SiteCloud(site.data_dir)
    async with cloud.serving() as url:
        site.config = msgspec.structs.replace(site.config, link=LinkConfig(url=url))
        async with site.gateway() as gateway:
            async with device(gateway) as client:
                await send(client, b'{"ok":true}', "up/response/c1")
            await gateway.until(lambda seen: seen.totals.logged == seen.totals.accepted == 3)
    assert all(record.origin.priority is Priority.EVENT for record in cloud.records)
    assert [(record.origin.codec, record.origin.alias, record.payload) for record in cloud.records] == [
        ("presence", "pump", b'{"online":true,"reason":"connected"}'),
        ("response", "pump", b'{"ok":true}'),
        ("presence", "pump", b'{"online":false,"reason":"disconnected"}'),
    ]


async def test_a_process_of_ones_own_publishes_and_is_answered(site: Site) -> None:
    async with site.gateway() as gateway:
        bus = ZeroMqBus.connect(gateway.bus)
        made = batch(0, [b'{"n":1}', b'{"n":2}'])
        await bus.publish("inbound", encode_records(made), key=made.key)
        assert (await gateway.accounting()).totals.logged == 2
        await bus.close()


async def test_a_gateway_that_is_not_enrolled_names_the_command(tmp_path: Path) -> None:
    error = await refusal(Site(tmp_path))
    assert "is not enrolled" in error.message
    assert "tidegate-edge enroll" in error.remedy
    assert str(tmp_path / "data") in error.remedy


async def test_two_gateways_on_one_folder(site: Site) -> None:
    async with site.gateway():
        error = await refusal(site)
        assert f"another gateway runs as process {os.getpid()}" in error.message
    assert running(site.data_dir) is None


async def test_an_occupied_port_ends_the_start_and_leaves_nothing_behind(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (mqtt,) = site.config.mqtt
        config = site.config
        site.config = msgspec.structs.replace(config, mqtt=(msgspec.structs.replace(mqtt, port=port),))
        error = await refusal(site)
        assert f"listener 'mqtt' cannot listen on 127.0.0.1:{port}: the port is in use" in error.message
        site.config = msgspec.structs.replace(config, status=StatusConfig(port=port))
        error = await refusal(site)
        assert f"the status page cannot listen on 127.0.0.1:{port}" in error.message
        assert "status.port" in error.remedy
    site.config = config
    async with site.gateway() as gateway:
        assert (await gateway.http.get("/healthz")).text == "ok\n"


async def test_a_path_that_no_socket_can_have(site: Site) -> None:
    site.config = msgspec.structs.replace(site.config, bus=BusConfig(endpoint="ipc:///" + 120 * "x"))
    error = await refusal(site)
    assert "107 bytes" in error.message
    assert "bus.endpoint" in error.remedy


async def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    site = Site(tmp_path)
    (tmp_path / "file").write_text("")
    site.config = msgspec.structs.replace(site.config, link=LinkConfig(ca_file=str(tmp_path / "file")))
    await site.furnish()
    site.config = msgspec.structs.replace(site.config, link=LinkConfig(url="wss://127.0.0.1:1", ca_file="/none.pem"))
    assert "link.ca_file /none.pem" in (await refusal(site)).message


async def test_a_resolver_with_a_defect_stops_nobody(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    real, failures = LocalResolver.run, [RuntimeError("a defect"), RuntimeError("a defect")]

    async def run(self: LocalResolver) -> None:
        if failures:
            raise failures.pop()
        await real(self)

    monkeypatch.setattr(LocalResolver, "run", run)
    monkeypatch.setattr("edge.background.RESTART_S", 0.01)
    async with site.gateway() as gateway, device(gateway) as pump:
        await send(pump, b'{"n":1}')
        await gateway.until(lambda seen: seen.resolver.messages == 1)
    assert not failures


async def test_a_recorder_that_ends_ends_the_gateway_with_the_reason(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run(self: Recorder) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(Recorder, "run", run)
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(RuntimeError, match="a defect"):
            await run_gateway(site.config, asyncio.Event())
    assert running(site.data_dir) is None


async def test_stopping_ends_tails_and_answers_what_was_collected(site: Site) -> None:
    parts: list[bytes] = []
    begun = asyncio.Event()

    async def follow(gateway: RunningSite) -> None:
        async with (
            httpx.AsyncClient(base_url=gateway.http.base_url, timeout=PATIENCE_S, trust_env=False) as client,
            client.stream("GET", "/tail") as stream,
        ):
            async for part in stream.aiter_bytes():
                parts.append(part)
                begun.set()

    async with asyncio.timeout(PATIENCE_S):
        async with site.gateway() as gateway, device(gateway) as pump:
            following = asyncio.create_task(follow(gateway))
            await begun.wait()
            answers = [pump.publish("up", b'{"n":%d}' % number, 1) for number in range(500)]
            await gateway.until(lambda seen: seen.totals.logged == 501 and seen.resolver.messages == 500)
        await following
    assert b"".join(parts).count(b'"kind":"message"') == 500
    assert all(answer.is_published() for answer in answers)
