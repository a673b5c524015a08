"""What somebody on a site does with a gateway: real processes, real commands."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge.config import LinkConfig, MqttConfig
from edge.data_folder import running
from edge.reload import Reloaded
from edge.service.unit import Service, text
from edge.status.latest import DevicesHeard
from sync.link.frames import Configuration, ConfigurationResult
from tests.contract.nats_server import free_port
from tests.edge.cloud import SiteCloud
from tests.edge.site import COMMAND, PATIENCE_S, RunningSite, Site, command
from tests.sync.link.platform import until

CONNECT = b"\x10\x1f\x00\x04MQTT\x04\xc2\x00\x00\x00\x00\x00\x04pump\x00\x0bpump-secret"
"""MQTT 3.1.1: a clean session of the pump, without keep-alive."""
CONNECT_KEPT = b"\x10\x20\x00\x04MQTT\x04\xc0\x00\x00\x00\x01c\x00\x04pump\x00\x0bpump-secret"
"""The same, with a session that is kept."""
AS_ROOT = {"fchown"}
"""SQLite gives new files the owner of the database where it runs as root, as tests may, and does without."""
PUBLISH = b'\x32\x0d\x00\x02up\x00\x07{"n":1}'
"""QoS 1, packet identifier 7."""


@pytest.fixture
async def site(tmp_path: Path) -> Site:
    made = Site(tmp_path)
    await made.furnish()
    return made


async def doctor(site: Site, *words: str | Path) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code, and what was found, by check."""
    done = await asyncio.to_thread(command, "doctor", "--config", site.config_file, "--json", *words)
    assert done.stdout, done.stderr
    return done.returncode, {found["check"]: found for found in json.loads(done.stdout)["findings"]}


async def test_doctor_beside_a_running_gateway_and_without_one(site: Site, tmp_path: Path) -> None:
    cloud = SiteCloud(site.data_dir)
    async with cloud.serving() as url:
        site.config = msgspec.structs.replace(site.config, link=LinkConfig(url=url))
        async with site.process() as process:
            await process.site.until(lambda seen: seen.link.state == "up")
            archive = tmp_path / "support.tar.gz"
            code, found = await doctor(site, "--bundle", archive)
            assert code == 0, found
            assert found["gateway"]["seen"] == f"quay-1 runs, process {process.pid}"
            assert found["cloud credential"]["seen"] == "accepted: the running gateway's link is up"
            with tarfile.open(archive) as opened:
                assert len(opened.getnames()) == 4
        code, found = await doctor(site)
        assert (code, found["gateway"]["state"]) == (0, "warning")
        assert found["cloud credential"]["seen"] == "accepted by 127.0.0.1"
    code, found = await doctor(site)
    assert (code, found["cloud port"]["state"]) == (1, "failed")


async def test_a_reload_drops_no_device_whose_listener_did_not_change(site: Site) -> None:
    config = ("--config", site.config_file)
    async with site.process() as process:
        reader, writer = await asyncio.open_connection("127.0.0.1", process.site.mqtt_port)
        writer.write(CONNECT)
        assert await reader.readexactly(4) == b"\x20\x02\x00\x00"
        written = site.config_file.read_text()
        extra = '[[mqtt]]\nname = "pier"\nnetwork = "pier"\nhost = "127.0.0.1"\nport = 0\n'

        site.config_file.write_text(f"{written}{extra}")
        done = await asyncio.to_thread(command, "reload", *config)
        assert (done.returncode, done.stdout) == (0, "mqtt: kept\npier: started\n"), done.stderr
        assert [one.name for one in (await process.site.accounting()).listeners] == ["mqtt", "pier"]

        site.config_file.write_text(f"{written}{extra}mistake = 1\n")
        done = await asyncio.to_thread(command, "reload", *config)
        assert done.returncode == 1
        assert "mqtt[1].mistake: no such setting" in done.stderr
        os.kill(process.pid, signal.SIGHUP)
        async with asyncio.timeout(PATIENCE_S):
            while (seen := await process.site.get("/reload", Reloaded)).number < 2:
                await asyncio.sleep(0.02)
        assert "mqtt[1].mistake: no such setting" in seen.refused

        site.config_file.write_text(written.replace("max_bytes = ", "retain_acked_bytes = 1\nmax_bytes = "))
        done = await asyncio.to_thread(command, "reload", *config)
        assert done.stdout == "mqtt: kept\npier: closed\ntakes effect at the next start: log.retain_acked_bytes\n"

        writer.write(PUBLISH)  # on the connection of before
        assert await reader.readexactly(4) == b"\x40\x02\x00\x07"
        writer.close()
        assert await decoded(process.site) == 1


class Pushing:
    """The cloud's configurations, for one gateway, over as many connections as it needs."""

    def __init__(self) -> None:
        self.wanted = Configuration(0, None)
        self.changed = asyncio.Event()
        self.told: asyncio.Queue[ConfigurationResult] = asyncio.Queue()
        self.named: list[int | None] = []

    async def configurations(self, revision: int | None) -> AsyncIterator[Configuration]:
        self.named.append(revision)
        while True:
            self.changed.clear()
            if self.wanted.revision != revision:
                revision = self.wanted.revision
                yield self.wanted
            await self.changed.wait()

    async def became(self, result: ConfigurationResult) -> None:
        self.told.put_nowait(result)

    async def push(self, revision: int, toml: str | None) -> ConfigurationResult:
        self.wanted = Configuration(revision, toml)
        self.changed.set()
        return await self.result()

    async def result(self) -> ConfigurationResult:
        """Of what is wanted, and not one before it that was told again."""
        async with asyncio.timeout(PATIENCE_S):
            while (result := await self.told.get()).revision != self.wanted.revision:
                pass
        return result


async def test_listeners_pushed_by_the_cloud_drop_nobody_and_outlive_a_kill(site: Site) -> None:
    cloud = SiteCloud(site.data_dir)
    cloud.configuration = desk = Pushing()
    own = '[[mqtt]]\nname = "mqtt"\nnetwork = "quay"\nhost = "127.0.0.1"\nport = 0\n'
    pier = own.replace('"mqtt"', '"pier"')

    async def send(listener: str) -> None:
        found = running(site.data_dir)
        assert found is not None
        reader, writer = await asyncio.open_connection("127.0.0.1", found.ports[listener])
        writer.write(CONNECT + PUBLISH)
        async with asyncio.timeout(PATIENCE_S):
            assert await reader.readexactly(8) == b"\x20\x02\x00\x00\x40\x02\x00\x07"
        writer.close()

    with socket.create_server(("127.0.0.1", 0)) as taken:
        async with cloud.serving() as url:
            site.config = msgspec.structs.replace(site.config, link=LinkConfig(url=url))
            async with site.process() as process:
                await process.site.until(lambda seen: seen.link.state == "up")
                reader, writer = await asyncio.open_connection("127.0.0.1", process.site.mqtt_port)
                writer.write(CONNECT)
                assert await reader.readexactly(4) == b"\x20\x02\x00\x00"

                result = await desk.push(5, own + pier)
                assert [(one.name, one.what) for one in result.listeners] == [("mqtt", "kept"), ("pier", "started")]
                writer.write(PUBLISH)  # on the connection of before
                assert await reader.readexactly(4) == b"\x40\x02\x00\x07"
                await send("pier")

                bad = own + pier.replace("port = 0", f"port = {taken.getsockname()[1]}")
                result = await desk.push(6, bad)
                assert "listener 'pier'" in result.refused
                writer.write(PUBLISH)
                assert await reader.readexactly(4) == b"\x40\x02\x00\x07"
                done = await asyncio.to_thread(command, "status", "--config", site.config_file, "--json")
                shown = json.loads(done.stdout)["pushed"]
                assert (shown["revision"], shown["in_force"], shown["refused"]) == (6, True, result.refused)

                await process.kill()
                writer.close()
                desk.told = asyncio.Queue()
                await process.start()
                assert await desk.result() == result, "the cloud is told once more"
                assert (desk.named[0], desk.named[-1]) == (0, 6)
                await send("pier")
                assert not (await desk.push(7, None)).refused
                found = running(site.data_dir)
                assert found is not None
                assert list(found.ports) == ["mqtt"]
                await until(lambda: len(cloud.payloads) == 4)


async def test_a_session_outlives_a_reload_of_its_listener(site: Site) -> None:
    async with site.process() as process:
        for session_present, limit in ((b"\x00", 9), (b"\x01", 8), (b"\x01", 7)):
            found = running(site.data_dir)
            assert found is not None
            reader, writer = await asyncio.open_connection("127.0.0.1", found.ports["mqtt"])
            writer.write(CONNECT_KEPT + PUBLISH)
            async with asyncio.timeout(PATIENCE_S):
                assert await reader.readexactly(8) == b"\x20\x02" + session_present + b"\x00\x40\x02\x00\x07"
            written = site.config_file.read_text()
            site.config_file.write_text(written.replace("[status]", f"connections_max = {limit}\n[status]"))
            done = await asyncio.to_thread(command, "reload", "--config", site.config_file)
            assert (done.returncode, done.stdout) == (0, "mqtt: restarted\n"), done.stderr
            assert await reader.read() == b"", "a listener that changed ends its connections"
            writer.close()
            site.config_file.write_text(written)
        assert await decoded(process.site) == 3


async def decoded(gateway: RunningSite) -> int:
    """Messages of the pump, once all that is logged is resolved; the log holds its coming and going too."""
    await gateway.until(lambda seen: seen.resolver.records == seen.totals.logged)
    (pump,) = (await gateway.get("/latest", DevicesHeard)).devices
    return pump.messages


async def test_a_gateway_in_a_terminal_ends_with_it(site: Site) -> None:
    ours, theirs = pty.openpty()
    config = site.write_config()
    gateway = await asyncio.create_subprocess_exec(
        "setsid", "--ctty", "--wait", COMMAND, "run", "--config", config, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    async with asyncio.timeout(2 * PATIENCE_S):
        said = b""
        while b"gateway is up" not in said:
            said += await asyncio.to_thread(os.read, ours, 4096)
        os.close(ours)
        await gateway.wait()  # 0, or 1 where it wanted to say something in the moment between
    assert running(site.data_dir) is None


async def test_a_service_manager_is_told_and_no_call_is_made_that_the_unit_forbids(site: Site, tmp_path: Path) -> None:
    """Under strace, as nothing else tells which calls a unit's filter would meet."""
    strace = shutil.which("strace")
    if strace is None or shutil.which("systemd-analyze") is None:
        pytest.skip("strace or systemd-analyze is not installed")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.setblocking(False)
        environ = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "300000"}
        calls = tmp_path / "calls.txt"
        gateway = await asyncio.create_subprocess_exec(
            strace, "-f", "-c", "-U", "name", "-o", calls, COMMAND, "run", "--config", site.write_config(), env=environ
        )  # fmt: skip
        told: list[str] = []

        async def until_told(line: str) -> None:
            async with asyncio.timeout(4 * PATIENCE_S):  # strace makes all of it slow
                while line not in told:
                    told.extend((await asyncio.get_running_loop().sock_recv(systemd, 4096)).decode().split("\n"))

        try:
            await until_told("READY=1")
            found = running(site.data_dir)
            assert found is not None
            reader, writer = await asyncio.open_connection("127.0.0.1", found.ports["mqtt"])
            writer.write(CONNECT + PUBLISH)
            async with asyncio.timeout(PATIENCE_S):
                assert await reader.readexactly(8) == b"\x20\x02\x00\x00\x40\x02\x00\x07"
            writer.close()
            told.clear()
            await until_told("WATCHDOG=1")
            assert [line for line in told if line.startswith("STATUS=") and " logged, " in line]
            os.kill(found.pid, signal.SIGHUP)
            os.kill(found.pid, signal.SIGTERM)
            await until_told("STOPPING=1")
            assert await gateway.wait() == 0
        finally:
            if gateway.returncode is None:
                if (found := running(site.data_dir)) is not None:
                    os.kill(found.pid, signal.SIGKILL)  # without its tracer it would go on
                gateway.kill()
                await gateway.wait()
    made = set(calls.read_text().split()[1:]) & expanded("@known")
    filters = re.findall(r"^SystemCallFilter=(.*)$", text(Service(COMMAND, site.config_file, site.config, "me")), re.M)
    allowed: set[str] = set()
    for words in filters:
        names = set().union(*(expanded(word) for word in words.removeprefix("~").split()))
        allowed = allowed - names if words.startswith("~") else allowed | names
    assert made - allowed - AS_ROOT == set()


def expanded(name: str) -> set[str]:
    """The system calls of a set of systemd's, or one by its own name."""
    if not name.startswith("@"):
        return {name}
    shown = subprocess.run(["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True)
    words = [line.strip() for line in shown.stdout.splitlines()[1:]]
    return set().union(*(expanded(word) for word in words if word and not word.startswith("#")))


async def test_listeners_are_tried_without_a_gateway_and_beside_one(site: Site) -> None:
    port = free_port()
    site.config = msgspec.structs.replace(site.config, mqtt=(MqttConfig("mqtt", "quay", "127.0.0.1", port),))
    config = ("--config", site.write_config())

    async def tried(answer: bytes) -> tuple[int | None, str, str]:
        """What the command shows of one message, and exits with; the device is answered so."""
        trying = await asyncio.create_subprocess_exec(
            COMMAND, "test", "--once", "--timeout", "60s", *config, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        shown = asyncio.create_task(trying.communicate())
        async with asyncio.timeout(2 * PATIENCE_S):
            while not shown.done():  # until it looks on
                with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.write(CONNECT)
                    assert await reader.readexactly(4) == b"\x20\x02\x00\x00"
                    writer.write(PUBLISH)
                    assert await reader.read(4) == answer
                    writer.close()
                await asyncio.sleep(0.1)
        out, errors = await shown
        return trying.returncode, out.decode(), errors.decode()

    code, out, errors = await tried(b"")
    assert (code, out.partition("quay:serial:pump  ")[2]) == (0, '{"n":1}\n'), errors
    assert "they get no\nPUBACK" in errors
    assert "mqtt: heard, and decoded" in errors
    assert not (site.data_dir / "log").exists()
    async with site.process():
        code, out, errors = await tried(b"\x40\x02\x00\x07")
        assert (code, out.partition("quay:serial:pump  ")[2]) == (0, '{"n":1}\n'), errors
        assert "the gateway runs" in errors
