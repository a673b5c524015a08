"""The gateway as its users have it: a process, real MQTT clients, and what becomes of their messages."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import msgspec
import paho.mqtt.client as paho
import psutil
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edge.app import REPLICA_FILE
from edge.config import LinkConfig, LogConfig
from protocols.limits import PAYLOAD_BYTES_MAX
from tests.edge.cloud import SiteCloud
from tests.edge.site import COMMAND, LOG_MIN, PATIENCE_S, GatewayProcess, Site, command

RSS_BYTES_MAX = 70_000_000
KILLS = 5
HEAVY = ("cloud", "fastapi", "httpx", "prometheus_client", "pydantic", "rich", "sqlite_utils", "uvicorn")


@pytest.fixture
async def site(tmp_path: Path) -> Site:
    made = Site(tmp_path)
    await made.furnish()
    return made


async def mosquitto_pub(port: int, payload: str, *, user: str = "pump", password: str = "pump-secret") -> int:
    """The exit code: 0 once it has the PUBACK."""
    program = shutil.which("mosquitto_pub")
    assert program, "mosquitto_pub is missing: apt-get install mosquitto-clients"
    process = await asyncio.create_subprocess_exec(
        program, "-h", "127.0.0.1", "-p", str(port), "-u", user, "-P", password, "-q", "1", "-t", "up", "-m", payload,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    async with asyncio.timeout(PATIENCE_S):
        return await process.wait()


async def shown(*words: str | Path) -> str:
    done = await asyncio.to_thread(command, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def exported(site: Site, file: Path) -> list[bytes]:
    """Payloads of all messages in the log, in order; what the gateway itself notes has no topic."""
    await shown("log", "export", file, "--config", site.config_file)
    database = sqlite3.connect(file)
    rows = database.execute("SELECT payload FROM records WHERE topic <> '' ORDER BY received_time, seq").fetchall()
    database.close()
    return [payload for (payload,) in rows]


async def test_a_message_from_the_device_to_every_command(site: Site, tmp_path: Path) -> None:
    async with site.process() as process:
        config = ("--config", site.config_file)
        tail = await asyncio.create_subprocess_exec(COMMAND, "tail", *config, "--json", stdout=subprocess.PIPE)
        assert tail.stdout is not None
        payload = {"temperature": 71.5}
        async with asyncio.timeout(PATIENCE_S):
            event: dict[str, object] = {}
            while not event:  # until the tail has begun to look on
                assert await mosquitto_pub(process.site.mqtt_port, json.dumps(payload)) == 0
                try:
                    async with asyncio.timeout(0.5):
                        event = json.loads(await tail.stdout.readline())
                except TimeoutError:
                    continue
        tail.terminate()
        await tail.wait()
        assert (event["alias"], event["device_id"], event["data"]) == ("pump", 1, payload)
        (heard,) = json.loads(await shown("devices", *config, "--json"))
        assert (heard["device"], heard["known"], heard["listener"]) == ("quay:serial:pump", "device 1", "mqtt")
        assert "quay:serial:pump" in await shown("devices", *config, "--listener", "mqtt")
        assert json.loads(await shown("devices", *config, "--listener", "other", "--json")) == []
        seen = json.loads(await shown("status", *config, "--json"))
        assert seen["closed"]
        assert seen["totals"]["logged"] == seen["totals"]["pending"] >= 1
        assert "logged" in await shown("status", *config)
        assert set(await exported(site, tmp_path / "running.sqlite")) == {json.dumps(payload).encode()}
    assert await process.end() == 0
    assert set(await exported(site, tmp_path / "stopped.sqlite")) == {json.dumps(payload).encode()}


async def test_it_is_small_and_loads_nothing_that_only_commands_need(site: Site) -> None:
    imported = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", "import edge.cli, edge.app, sys; print(*{name.split('.')[0] for name in sys.modules})"],
        capture_output=True, text=True, timeout=PATIENCE_S, check=True,
    )  # fmt: skip
    assert not set(HEAVY) & set(imported.stdout.split())
    async with site.process() as process:
        assert await mosquitto_pub(process.site.mqtt_port, "{}") == 0
        assert psutil.Process(process.pid).memory_info().rss < RSS_BYTES_MAX


class Pump:
    """Sends numbered messages with many in flight, and notes each that was acknowledged; connects again by itself."""

    def __init__(self, number: int, port: int) -> None:
        self.acknowledged: set[bytes] = set()
        self.sent = 0
        self._number = number
        self._in_flight: dict[int, bytes] = {}
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"pump-{number}", reconnect_on_failure=True)
        self._client.username_pw_set(f"pump-{number}", "network")
        self._client.reconnect_delay_set(0.05, 0.2)
        self._client.on_publish = self._on_publish
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def send(self, count: int) -> None:
        for _ in range(count):
            payload = b'{"device":%d,"n":%d}' % (self._number, self.sent)
            self.sent += 1
            self._in_flight[self._client.publish("up", payload, 1).mid] = payload

    def _on_publish(self, client: object, data: object, mid: int, *_: object) -> None:
        payload = self._in_flight.pop(mid, None)
        if payload is not None:
            self.acknowledged.add(payload)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


async def test_every_acknowledged_message_is_in_the_log_through_kills(site: Site, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (mqtt,) = site.config.mqtt
    site.config = msgspec.structs.replace(site.config, mqtt=(msgspec.structs.replace(mqtt, port=port),))
    rng = random.Random(7)
    process = GatewayProcess(site)
    await process.start()
    pumps = [Pump(number, port) for number in range(4)]
    try:
        for _ in range(KILLS):
            for pump in pumps:
                pump.send(300)
            enough = sum(len(pump.acknowledged) for pump in pumps) + rng.randrange(1, 800)
            async with asyncio.timeout(PATIENCE_S):
                while sum(len(pump.acknowledged) for pump in pumps) < enough:
                    await asyncio.sleep(0.001)
            await process.kill()
            await process.start()
        async with asyncio.timeout(3 * PATIENCE_S):
            while not all(len(pump.acknowledged) == pump.sent for pump in pumps):
                await asyncio.sleep(0.02)
    finally:
        for pump in pumps:
            await asyncio.to_thread(pump.close)
        code = await process.end()
    assert code == 0
    kept = await exported(site, tmp_path / "log.sqlite")
    for pump in pumps:
        assert pump.acknowledged <= set(kept)
    assert len(set(kept)) == sum(pump.sent for pump in pumps)


async def test_a_full_log_that_does_not_evict_gives_no_puback_and_takes_again_when_the_cloud_has_some(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, log=msgspec.structs.replace(LOG_MIN, evict=False))
    await site.furnish()
    cloud, may_store = SiteCloud(site.data_dir), asyncio.Event()

    async def before(_: list[bytes]) -> None:
        await may_store.wait()

    cloud.before = before
    async with cloud.serving() as url:
        site.config = msgspec.structs.replace(site.config, link=LinkConfig(url=url))
        async with site.process() as process:
            gateway = process.site
            pump = paho.Client(CallbackAPIVersion.VERSION2, client_id="pump", reconnect_on_failure=False)
            pump.username_pw_set("pump", "pump-secret")
            pump.connect("127.0.0.1", gateway.mqtt_port)
            pump.loop_start()
            answers = [pump.publish("up", os.urandom(200_000), 1) for _ in range(120)]
            seen = await gateway.until(lambda seen: seen.refused.get("log-full", 0) > 0)
            assert seen.log.used_bytes <= seen.log.max_bytes
            assert seen.log.trouble.startswith("log-full")
            ready = await gateway.http.get("/readyz")
            assert ready.status_code == 503
            assert "log-full" in ready.json()["reasons"][0]
            async with asyncio.timeout(PATIENCE_S):
                while pump.is_connected():  # MQTT 3.1.1 has no other way to say no
                    await asyncio.sleep(0.02)
            acknowledged = sum(answer.is_published() for answer in answers)
            assert 0 < acknowledged < 120
            seen = await gateway.accounting()
            assert acknowledged <= seen.totals.logged
            may_store.set()
            async with asyncio.timeout(PATIENCE_S):
                while (await gateway.http.get("/readyz")).status_code != 200:  # by itself: nobody sends
                    await asyncio.sleep(0.02)
            assert await mosquitto_pub(gateway.mqtt_port, '{"after":1}') == 0
            seen = await gateway.until(lambda seen: seen.totals.pending == 0)
            assert seen.closed
            pump.loop_stop()
    assert b'{"after":1}' in cloud.payloads


async def test_a_damaged_replica_is_replaced_by_the_clouds(site: Site) -> None:
    replica = site.data_dir / REPLICA_FILE
    replica.write_bytes(b"\xff" * 5000)
    async with site.process() as process:
        assert (await process.site.accounting()).registry.revision == 0
        assert await mosquitto_pub(process.site.mqtt_port, "{}") != 0, "nobody can be told from anybody"
    assert "replica dropped" in process.said
    cloud = SiteCloud(site.data_dir)
    async with cloud.serving() as url:
        site.config = msgspec.structs.replace(site.config, link=LinkConfig(url=url))
        async with site.process() as process:
            await process.site.until(lambda seen: seen.registry.revision == 7)
            assert await mosquitto_pub(process.site.mqtt_port, "{}") == 0


async def test_an_occupied_port_ends_it_with_what_to_do(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (mqtt,) = site.config.mqtt
        site.config = msgspec.structs.replace(site.config, mqtt=(msgspec.structs.replace(mqtt, port=port),))
        done = await asyncio.to_thread(command, "run", "--config", site.write_config())
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert errors[0] == f"error: listener 'mqtt' cannot listen on 127.0.0.1:{port}: the port is in use"
    assert errors[1].startswith("  try: stop what listens there")


async def test_a_second_gateway_on_the_folder_says_who_has_it(site: Site) -> None:
    async with site.process() as process:
        done = await asyncio.to_thread(command, "run", "--config", site.config_file)
        assert done.returncode == 1
        assert f"another gateway runs as process {process.pid}" in done.stderr
        assert await mosquitto_pub(process.site.mqtt_port, "{}") == 0


async def test_bad_input_is_counted_and_disturbs_nobody_else(site: Site) -> None:
    async with site.process() as process:
        gateway = process.site
        assert await mosquitto_pub(gateway.mqtt_port, "not json") == 0
        assert await mosquitto_pub(gateway.mqtt_port, "{}", password="wrong") != 0
        for rubbish in (b"\x10\xff\xff\xff\xff\xff", b"GET / HTTP/1.1\r\n\r\n", os.urandom(500)):
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.mqtt_port)
            writer.write(rubbish)
            async with asyncio.timeout(PATIENCE_S):
                assert await reader.read() == b""
            writer.close()
        big = paho.Client(CallbackAPIVersion.VERSION2, client_id="big", reconnect_on_failure=False)
        big.username_pw_set("pump", "pump-secret")
        big.connect("127.0.0.1", gateway.mqtt_port)
        big.loop_start()
        big.publish("up", b"x" * (2 * PAYLOAD_BYTES_MAX), 1)
        seen = await gateway.until(lambda seen: seen.resolver.rejected == 1 and sum(seen.turned_away.values()) == 5)
        big.loop_stop()
        assert seen.turned_away["wrong_password"] == 1
        assert seen.closed
        rejections = (await gateway.http.get("/rejects")).json()
        assert rejections["rejected"][0]["payload"]["text"] == "not json"
        assert len(rejections["refused"]) == 5
        assert await mosquitto_pub(gateway.mqtt_port, '{"n":1}') == 0


async def test_memory_is_flat_over_a_backlog(tmp_path: Path) -> None:
    site = Site(tmp_path, log=LogConfig(max_bytes=200_000_000))
    await site.furnish()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (mqtt,) = site.config.mqtt
    site.config = msgspec.structs.replace(site.config, mqtt=(msgspec.structs.replace(mqtt, port=port),))
    async with site.process() as process:
        gateway = process.site
        pumps = [Pump(number, port) for number in range(4)]
        rss = []
        for round_number in range(1, 5):
            for pump in pumps:
                await asyncio.to_thread(pump.send, 5000)
            await gateway.until(lambda seen, logged=20_000 * round_number: seen.totals.logged >= logged)
            rss.append(psutil.Process(process.pid).memory_info().rss)
        for pump in pumps:
            await asyncio.to_thread(pump.close)
    assert rss[-1] < rss[0] * 1.1, rss
