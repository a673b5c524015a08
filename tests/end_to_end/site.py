"""A cloud and a gateway as processes, set up and asked through their commands and public APIs, as a user would; killed
and started again as a site would do it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import httpx
import psutil

from tests.contract.nats_server import free_port

COMMANDS = Path(sys.executable).parent
READY_S = 60.0
STOP_S = 60.0
POLL_S = 0.1


class Process:
    """A program that is started as often as it is killed; its output is kept in one file."""

    def __init__(self, name: str, command: Sequence[str | Path], log: Path) -> None:
        self.name = name
        self.log = log
        self.environment: dict[str, str] = {}
        """Beside that of this process; for its next start."""
        self._command = [str(part) for part in command]
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return None if self._process is None else self._process.returncode

    async def start(self, *before: str | Path) -> None:
        """`before`: a program that runs it, with its arguments."""
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *before,
                *self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **self.environment},
            )

    async def wait(self) -> int:
        """Its exit code, once it has ended."""
        assert self._process is not None
        return await self._process.wait()

    async def kill(self) -> None:
        self.signal(signal.SIGKILL)
        await self.wait()

    def signal(self, number: signal.Signals) -> None:
        """Not by asyncio's own way, which collects a child that has just ended and forgets its exit code."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def stop(self) -> int:
        """In order; its exit code."""
        if self._process is None:
            return 0
        self.signal(signal.SIGTERM)
        return await asyncio.wait_for(self._process.wait(), STOP_S)

    def rss_bytes(self) -> int:
        return int(psutil.Process(self.pid).memory_info().rss)


class Platform:
    """The cloud as a process, and an administrator's way into its API."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.http_port = free_port()
        self.url = f"http://127.0.0.1:{self.http_port}"
        self.cloud_toml = folder / "cloud.toml"
        self.cloud_toml.write_text(
            f'data_dir = "{folder / "cloud"}"\n'
            f"[http]\nport = {self.http_port}\n[database]\nport = {free_port()}\n[nats]\nport = {free_port()}\n"
        )
        self.cloud = Process(
            "cloud", [COMMANDS / "tidegate-cloud", "run", "--config", self.cloud_toml], folder / "cloud.log"
        )
        self.password = ""
        self.client = httpx.AsyncClient(timeout=30.0, trust_env=False)

    async def close(self) -> None:
        await self.cloud.stop()
        await self.client.aclose()

    async def start(self) -> None:
        await self.cloud.start()
        await until(self.is_ready)

    async def is_ready(self) -> bool:
        assert self.cloud.returncode is None, self.cloud.log.read_text()[-3000:]
        return await answers(self.client, f"{self.url}/readyz")

    async def is_ready_or_gone(self) -> bool:
        return self.cloud.returncode is not None or await self.is_ready()

    async def sign_in(self) -> None:
        reset = await self.command("tidegate-cloud", "user", "reset", "admin", "--config", self.cloud_toml, "--json")
        self.password = json.loads(reset)["password"]
        answer = await self.client.post(f"{self.url}/api/v1/session", json={"user": "admin", "password": self.password})
        self.client.headers["Authorization"] = f"Bearer {answer.raise_for_status().json()['token']}"

    async def post(self, path: str, body: Mapping[str, Any], **parameters: str) -> Any:
        answer = await self.client.post(f"{self.url}/api/v1/{path}", json=body, params=parameters)
        assert answer.is_success, f"{path}: {answer.text}"
        return answer.json()

    async def get(self, path: str, **parameters: str) -> Any:
        """`path` may hold parameters itself."""
        answer = await self.client.get(httpx.URL(f"{self.url}/api/v1/{path}").copy_merge_params(parameters))
        assert answer.is_success, f"{path}: {answer.text}"
        return answer.json()

    async def command(self, name: str, *arguments: str | Path) -> str:
        """Runs one of the three commands to its end; its output."""
        code, output = await self.try_command(name, *arguments)
        assert code == 0, output
        return output

    async def try_command(self, name: str, *arguments: str | Path) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            COMMANDS / name,
            *map(str, arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "TIDEGATE_PASSWORD": self.password},
        )
        try:
            output, errors = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode is not None
        return process.returncode, output.decode() or errors.decode()


class Site:
    """One gateway `quay-1` with an MQTT listener for each of the networks `keyed` and `plain`, in a project of its own;
    and its cloud, unless it is one of several at `platform`."""

    def __init__(
        self,
        folder: Path,
        platform: Platform | None = None,
        *,
        project: str = "p",
        data_dir: Path | None = None,
        log: Mapping[str, Any] | None = None,
        link_url: str = "",
    ) -> None:
        """`log`: settings of the gateway's log; `link_url`: another than the cloud's own."""
        self.folder = folder
        self.project = project
        self.platform = platform or Platform(folder)
        self.data_dir = data_dir or folder / "gateway"
        self._owns_platform = platform is None
        self.status_port = free_port()
        self.mqtt_ports = {"keyed": free_port(), "plain": free_port()}
        self.status_url = f"http://127.0.0.1:{self.status_port}"
        self.edge_toml = folder / "edge.toml"
        listeners = "".join(
            f'[[mqtt]]\nname = "{network}"\nnetwork = "{network}"\nhost = "127.0.0.1"\nport = {port}\n'
            for network, port in self.mqtt_ports.items()
        )
        settings = "".join(f"{name} = {json.dumps(value)}\n" for name, value in (log or {}).items())
        self.edge_toml.write_text(
            f'data_dir = "{self.data_dir}"\n[status]\nport = {self.status_port}\n{listeners}'
            + (f"[log]\n{settings}" if settings else "")
            + (f'[link]\nurl = "{link_url}"\n' if link_url else "")
        )
        self.gateway = Process(
            "gateway", [COMMANDS / "tidegate-edge", "run", "--config", self.edge_toml], folder / "gateway.log"
        )
        self.secrets: dict[str, str] = {}
        """Network to its own credential."""

    @property
    def url(self) -> str:
        return self.platform.url

    @property
    def cloud(self) -> Process:
        return self.platform.cloud

    @property
    def cloud_toml(self) -> Path:
        return self.platform.cloud_toml

    @property
    def client(self) -> httpx.AsyncClient:
        return self.platform.client

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.gateway.stop()
        if self._owns_platform:
            await self.platform.close()

    async def set_up(self) -> None:
        """Cloud, project, networks, an enrolled gateway; all running."""
        await self.set_up_cloud()
        await self.enrol()
        await self.start_gateway()
        await self.until(self.link_is_up)

    async def set_up_cloud(self) -> None:
        """Cloud, project, system, blueprint, networks with their credentials."""
        if self._owns_platform:
            await self.start_cloud()
            await self.platform.sign_in()
        await self.platform.post("projects", {"id": self.project, "name": self.project})
        await self.post("systems", {"id": "site", "name": "Site"})
        await self.post("blueprints", {"id": "pump", "name": "Pump"})
        await self.post("networks", {"id": "keyed", "name": "Keyed", "codec": {"key_paths": ["boot", "seq"]}})
        await self.post("networks", {"id": "plain", "name": "Plain"})
        for network in self.mqtt_ports:
            self.secrets[network] = (await self.post(f"networks/{network}/credentials", {}))["password"]

    async def enrol(self) -> None:
        gateway = await self.post("gateways", {"id": "quay-1", "name": "Quay 1"})
        await self.command(
            "tidegate-edge", "enroll", self.url, "--token", gateway["enrolment"]["token"], "--config", self.edge_toml
        )

    async def add_devices(self, network: str, count: int) -> list[dict[str, Any]]:
        """As a fleet's roster wants them."""
        roster = []
        for number in range(count):
            name = f"{network}-{number:03}"
            body = {
                "system_id": "site",
                "blueprint_id": "pump",
                "name": name,
                "aliases": [{"network_id": network, "alias_key": "serial", "alias": name}],
                "credential": True,
            }
            made = await self.post("devices", body)
            roster.append(
                {
                    "name": name,
                    "password": made["credential"]["password"],
                    "network": network,
                    "keyed": network == "keyed",
                    "port": self.mqtt_ports[network],
                }
            )
        return roster

    async def start_cloud(self) -> None:
        await self.platform.start()

    async def start_gateway(self) -> None:
        await self.gateway.start()
        await self.until(self.gateway_is_ready)

    async def gateway_is_ready(self) -> bool:
        assert self.gateway.returncode is None, self.gateway.log.read_text()[-3000:]
        return await answers(self.client, f"{self.status_url}/readyz")

    async def link_is_up(self) -> bool:
        return bool((await self.gateway_status())["link"]["state"] == "up")

    async def gateway_knows(self, device: Mapping[str, Any]) -> bool:
        """Whether the credential of a roster's device has reached the gateway."""
        reader, writer = await asyncio.open_connection("127.0.0.1", device["port"])
        name, password = device["name"].encode(), device["password"].encode()
        parts = [b"\x00\x04MQTT\x04\xc2\x00\x3c"] + [len(p).to_bytes(2, "big") + p for p in (name, name, password)]
        body = b"".join(parts)
        writer.write(b"\x10" + bytes([len(body)]) + body)
        answer = await reader.read(4)
        writer.close()
        await writer.wait_closed()
        return answer == b"\x20\x02\x00\x00"

    async def until(self, condition: Callable[[], Any], within_s: float = READY_S) -> None:
        await until(condition, within_s)

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        return await self.platform.post(path, body, project_id=self.project)

    async def get(self, path: str) -> Any:
        return await self.platform.get(path, project_id=self.project)

    async def gateway_status(self) -> dict[str, Any]:
        found: dict[str, Any] = (await self.client.get(f"{self.status_url}/accounting")).raise_for_status().json()
        return found

    async def command(self, name: str, *arguments: str | Path) -> str:
        return await self.platform.command(name, *arguments)

    async def try_command(self, name: str, *arguments: str | Path) -> tuple[int, str]:
        return await self.platform.try_command(name, *arguments)

    async def fleet(self, roster: Sequence[dict[str, Any]], *arguments: str) -> tuple[int, dict[str, Any]]:
        """Runs a fleet to its end: exit code and summary."""
        path = self.folder / "roster.json"
        path.write_text(json.dumps(roster))
        code, output = await self.try_command(
            "tidegate-sim", "fleet", "--devices", path, "--ledger", self.folder / "ledger", "--json", *arguments
        )
        return code, json.loads(output)

    async def verify(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """The ledger against the API: exit code and proof."""
        code, output = await self.try_command(
            "tidegate-sim", "verify", "--ledger", self.folder / "ledger", "--api", self.url, "--project", self.project,
            "--gateway", self.status_url, "--json", *arguments,
        )  # fmt: skip
        return code, json.loads(output)


async def answers(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(url)).status_code == 200
    except httpx.TransportError:
        return False


async def until(condition: Callable[[], Any], within_s: float = READY_S) -> None:
    async with asyncio.timeout(within_s):
        while not await condition():
            await asyncio.sleep(POLL_S)
