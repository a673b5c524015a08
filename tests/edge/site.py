"""A gateway's data folder for tests, as enrolment and the cloud leave it, and the gateway on it: in this process or in
one of its own."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import msgspec

from edge.app import REPLICA_FILE, run_gateway
from edge.config import BusConfig, EdgeConfig, LinkConfig, LogConfig, MqttConfig, StatusConfig
from edge.data_folder import Running, running
from edge.identity import Enrolment, make_key, save_enrolment
from edge.replica import Replica
from edge.status.accounting import Accounting
from sync.registry import Alias, Blueprint, Device, Network, RegistryChange

COMMAND = Path(sys.executable).with_name("tidegate-edge")
PATIENCE_S = 20.0
"""For what comes within a second: long enough for a busy machine, short enough to see a test that hangs."""
NOBODY = "ws://127.0.0.1:1/link/v1"
LOG_MIN = LogConfig(max_bytes=21_495_808, segment_bytes=4 * 1024 * 1024)

T = TypeVar("T")


def digest(secret: str) -> tuple[str, ...]:
    return (hashlib.sha256(secret.encode()).hexdigest(),)


def registry(revision: int = 7) -> RegistryChange:
    """Network `quay` with the credential `network`, and the device `pump` with its own, `pump-secret`."""
    pump = Device(1, "site", "pump", (Alias("quay", "serial", "pump"),), None, digest("pump-secret"))
    network = Network("quay", secret_sha256=digest("network"))
    return RegistryChange("demo", 0, revision, (network,), (Blueprint("pump"),), (pump,))


class Site:
    """Folder and configuration; ports are free ones."""

    def __init__(self, folder: Path, *, link_url: str = NOBODY, log: LogConfig = LOG_MIN) -> None:
        self.data_dir = folder / "data"
        self.config_file = folder / "gateway.toml"
        self.config = EdgeConfig(
            data_dir=self.data_dir,
            log=log,
            link=LinkConfig(url=link_url),
            mqtt=(MqttConfig("mqtt", "quay", "127.0.0.1", 0),),
            status=StatusConfig(port=0),
            bus=BusConfig(),
        )

    def enrol(self) -> None:
        make_key(self.data_dir)
        save_enrolment(self.data_dir, Enrolment("demo", "quay-1", "http://127.0.0.1:1", NOBODY))

    async def furnish(self) -> None:
        """Enrolled, with a registry from an earlier link."""
        self.enrol()
        replica = Replica(self.data_dir / REPLICA_FILE, "demo")
        await replica.apply(registry())
        replica.close()

    def write_config(self) -> Path:
        log, (mqtt,) = self.config.log, self.config.mqtt
        self.config_file.write_text(
            f'data_dir = "{self.data_dir}"\n'
            f"[log]\nmax_bytes = {log.max_bytes}\nsegment_bytes = {log.segment_bytes}\n"
            f"evict = {str(log.evict).lower()}\n"
            f'[link]\nurl = "{self.config.link.url}"\n'
            f'[[mqtt]]\nname = "{mqtt.name}"\nnetwork = "{mqtt.network}"\nhost = "{mqtt.host}"\nport = {mqtt.port}\n'
            f"[status]\nport = {self.config.status.port}\n"
        )
        return self.config_file

    @contextlib.asynccontextmanager
    async def gateway(self) -> AsyncIterator[RunningSite]:
        """In this process."""
        stop = asyncio.Event()
        task = asyncio.create_task(run_gateway(self.config, stop))
        try:
            async with RunningSite(await self.until_running(task)) as site:
                yield site
        finally:
            stop.set()
            async with asyncio.timeout(PATIENCE_S):
                await task

    async def until_running(self, task: asyncio.Task[None]) -> Running:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                if task.done():
                    task.result()
                found = running(self.data_dir)
                if found is not None and found.status_url:
                    return found
                await asyncio.sleep(0.01)

    @contextlib.asynccontextmanager
    async def process(self) -> AsyncIterator[GatewayProcess]:
        """In a process of its own; it is up."""
        process = GatewayProcess(self)
        try:
            async with RunningSite(await process.start()) as site:
                process.site = site
                yield process
        finally:
            await process.end()


class RunningSite:
    """The status API of a gateway that runs."""

    def __init__(self, found: Running) -> None:
        self.mqtt_port = found.ports["mqtt"]
        self.bus = found.bus
        self.http = httpx.AsyncClient(base_url=found.status_url, timeout=PATIENCE_S, trust_env=False)

    async def __aenter__(self) -> RunningSite:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    async def get(self, path: str, kind: type[T]) -> T:
        return msgspec.json.decode((await self.http.get(path)).content, type=kind)

    async def accounting(self) -> Accounting:
        return await self.get("/accounting", Accounting)

    async def until(self, holds: Any) -> Accounting:
        """The first accounting for which it holds."""
        async with asyncio.timeout(PATIENCE_S):
            while not holds(seen := await self.accounting()):
                await asyncio.sleep(0.02)
        return seen


class GatewayProcess:
    """`tidegate-edge run`; what it says goes to a file."""

    def __init__(self, site: Site) -> None:
        self._config = site.write_config()
        self._data_dir = site.data_dir
        self._log = site.config_file.with_suffix(".log")
        self._process: asyncio.subprocess.Process
        self.site: RunningSite

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.returncode is None

    @property
    def said(self) -> str:
        return self._log.read_text()

    async def start(self) -> Running:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                COMMAND, "run", "--config", str(self._config), stderr=log
            )
        async with asyncio.timeout(PATIENCE_S):
            while True:
                found = running(self._data_dir)
                if found is not None and found.pid == self.pid and found.status_url:
                    return found
                assert self._process.returncode is None, self.said
                await asyncio.sleep(0.02)

    async def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        await self._process.wait()

    async def end(self) -> int:
        """SIGTERM; the exit code."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_S):
            return await self._process.wait()


def command(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """A command of the gateway, to its end."""
    return subprocess.run([COMMAND, *map(str, words)], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
