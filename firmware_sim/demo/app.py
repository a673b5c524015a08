"""The demo from its first process to its last: the wiring reads as a list."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import httpx
import msgspec

from firmware_sim.cloud_api import ApiError, CloudApi, GatewayAccounting, UnreachableError, gateway_accounting
from firmware_sim.demo.benches import add_benches, place, sections
from firmware_sim.demo.cable import SerialCable
from firmware_sim.demo.commands import command
from firmware_sim.demo.furnish import furnish, gateway_token
from firmware_sim.demo.ports import free_port
from firmware_sim.demo.process import DemoProcess, StartError, end_stale, how_it_ended
from firmware_sim.demo.screen import Screen, kinds, listeners, live_line, shown, size
from firmware_sim.demo.session import keep_auth_fresh, sign_in
from firmware_sim.demo.unit import BenchUnit, load_units
from firmware_sim.faults.control import ControlPort
from firmware_sim.faults.proxy import LinkProxy
from firmware_sim.fleet import FleetState
from firmware_sim.run_folder import DemoState, read_state, write_private, write_state
from firmware_sim.status_line import line_width
from tidegate.console import UserError, live

GATEWAY_TOML_HEAD: Final = (
    b"# Written anew by each make run. A listener of your own may be added behind the others until then:\n"
    b"# .venv/bin/tidegate-edge reload --config FILE takes it up.\n"
)
API_PORT: Final = 8080
STATUS_PORT: Final = 8081
CLOUD_READY_S: Final = 120.0
"""The first start makes a database cluster; a start after a power cut recovers one."""
GATEWAY_READY_S: Final = 30.0
DEVICES_READY_S: Final = 30.0
ENROL_S: Final = 60.0
PROBE_S: Final = 2.0
RESTARTS_MAX: Final = 5
"""Within RESTARTS_WITHIN_S a part: what ends more often does so for a reason that a restart does not mend."""
RESTARTS_WITHIN_S: Final = 60.0
RESTART_S: Final = 0.5
_ENGINES: Final = ("postgresql", "nats")
"""Parts of the cloud that say on a line of its log where they are."""


class Demo:
    """Runs once."""

    def __init__(self, folder: Path, screen: Screen, *, devices: int, rate_each: float) -> None:
        self._folder = folder
        self._screen = screen
        self._devices = devices
        self._rate_each = rate_each
        self._state = DemoState()
        self._client = httpx.AsyncClient(timeout=PROBE_S, trust_env=False)
        self._processes: list[DemoProcess] = []
        self._proxy: LinkProxy | None = None
        self._control: ControlPort | None = None
        self._cable: SerialCable | None = None
        self._unit: BenchUnit | None = None
        self._api: CloudApi | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`. Raises UserError; whatever happens, nothing that was started goes on."""
        self._folder.mkdir(parents=True, exist_ok=True)
        lock = take_lock(self._folder / "demo.pid")
        working = asyncio.create_task(self._work())
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            working.cancel()
            try:
                await asyncio.wait((working,))
                await self._end()
            finally:  # also when somebody does not want to wait
                for process in self._processes:
                    process.kill()
                os.close(lock)
        try:
            if not working.cancelled():
                working.result()
        except StartError as error:
            self._screen.log_tail(error.name, error.log, error.tail)
            raise
        except ApiError as error:
            raise UserError(f"the API refused what the demo asked: {error}", "make reset, then make run") from None
        except UnreachableError as error:
            raise UserError(f"the API cannot be used: {error}", f"see its log: {self._log('cloud')}") from None

    async def _work(self) -> None:
        self._state = read_state(self._folder) or DemoState()
        for name in await end_stale(self._state.pids, f"{self._folder}/"):
            self._screen.note(f"  ended the {name} that an earlier start had left behind")
        self._state.pids = {"demo": os.getpid()}
        self._state.ledger = str(self._folder / "ledger")
        add_benches(self._state)
        cloud = await self._start_cloud()
        self._api = await sign_in(self._state, self._client, self._cloud_command("user", "reset", "admin"), self._keep)
        await furnish(self._api, self._state, self._devices, self._keep)
        auth = asyncio.create_task(keep_auth_fresh(self._api, self._folder / "auth", wall_s=time.time))
        try:
            gateway = await self._start_gateway()
            devices = await self._start_devices()
            self._screen.welcome(self._state, self._folder)
            await self._watch(cloud, gateway, devices)
        finally:
            auth.cancel()

    async def _start_cloud(self) -> DemoProcess:
        port = free_port(API_PORT)
        self._state.api = f"http://127.0.0.1:{port}"
        config = {"data_dir": str(self._folder / "cloud"), "http": {"host": "127.0.0.1", "port": port}}
        write_private(self._folder / "cloud.toml", toml(config))
        cloud = await self._start("cloud", self._cloud_command("run"))
        load_units()  # meanwhile
        shown: set[str] = set()

        async def is_ready() -> bool:
            self._show_engines(cloud, shown)
            return await self._answers(f"{self._state.api}/readyz")

        await cloud.until_ready(is_ready, CLOUD_READY_S)
        self._show_engines(cloud, shown)
        self._screen.part("cloud", "all services ready")
        return cloud

    def _show_engines(self, cloud: DemoProcess, shown: set[str]) -> None:
        said = [line.split(maxsplit=1) for line in cloud.lines()]
        for engine in _ENGINES:
            places = [
                words[1] for words in said if len(words) == 2 and words[0] == engine and ", 127.0.0.1:" in words[1]
            ]
            if not places:
                return  # in this order, whichever is there first
            if engine not in shown:
                shown.add(engine)
                self._screen.part(engine, places[0])

    async def _lay_bench(self) -> None:
        """What stands at the gateway's side of the bench, and stays when the gateway is started anew."""
        serial, modbus = self._state.benches["serial"], self._state.benches["modbus"]
        try:
            self._cable = SerialCable(Path(serial.device.path), Path(serial.line))
            self._cable.open()
            self._unit = BenchUnit(modbus.device)
            await self._unit.start()
        except (OSError, RuntimeError) as error:
            raise UserError(f"no serial line or no Modbus unit for the bench: {error}", "try again") from None

    async def _start_gateway(self) -> DemoProcess:
        state = self._state
        await self._start_proxy()
        status_port = free_port(STATUS_PORT)
        state.status = f"http://127.0.0.1:{status_port}"
        place(state, self._folder, [status_port])
        state.mqtt_port = state.benches["mqtt"].device.port
        for bench in state.benches.values():
            bench.command = command(bench, shown, shutil.which)
        await self._lay_bench()
        config = {
            "data_dir": str(self._folder / "gateway"),
            "link": {"url": f"ws://127.0.0.1:{state.proxy_port}/link/v1"},
            "status": {"host": "127.0.0.1", "port": status_port},
            **sections(state),
        }
        write_private(self._folder / "gateway.toml", GATEWAY_TOML_HEAD + toml(config))
        if not (self._folder / "gateway" / "identity.json").exists():
            await self._enrol()
        gateway = await self._start("gateway", self._gateway_command("run"))
        await gateway.until_ready(self._is_gateway_ready, GATEWAY_READY_S)
        accounting = await gateway_accounting(state.status, self._client)
        log = accounting.log
        self._screen.part("gateway", f"{state.gateway} enrolled, log {size(log.used_bytes)} of {size(log.max_bytes)}")
        self._screen.part("listeners", listeners(state))
        return gateway

    async def _start_proxy(self) -> None:
        host, _, port = self._state.api.removeprefix("http://").partition(":")
        self._proxy = LinkProxy(host, int(port))
        self._state.proxy_port = await self._proxy.start()
        self._control = ControlPort(self._proxy)
        self._state.control_port = await self._control.start()

    async def _enrol(self) -> None:
        assert self._api is not None
        token = await gateway_token(self._api, self._state)
        enrolling = DemoProcess(
            "gateway", self._gateway_command("enroll", self._state.api, "--token", token), self._log("gateway")
        )
        await enrolling.start()
        try:
            async with asyncio.timeout(ENROL_S):
                code = await enrolling.wait()
        finally:
            enrolling.kill()
        if code != 0:
            raise enrolling.ended()

    async def _is_gateway_ready(self) -> bool:
        """Ready by its own word, its link up, the devices known to it, and the bench within its reach."""
        if not await self._answers(f"{self._state.status}/readyz"):
            return False
        accounting = await self._accounting()
        if accounting is None or accounting.link.state != "up":
            return False
        known = len(self._state.devices) + len(self._state.benches)
        heard = {listener.name for listener in accounting.listeners if not listener.trouble}
        return accounting.registry.devices >= known and heard >= set(self._state.benches)

    async def _start_devices(self) -> DemoProcess:
        self._keep()
        state_file = self._folder / "fleet.json"
        state_file.unlink(missing_ok=True)
        devices = await self._start(
            "devices",
            [
                program("tidegate-sim"),
                *("fleet", "--run", str(self._folder), "--state-file", str(state_file)),
                *("--count", str(len(self._state.devices)), "--rate-each", str(self._rate_each)),
            ],
        )

        async def are_connected() -> bool:
            fleet = self._fleet()
            return fleet is not None and fleet.connected == len(self._state.devices)

        await devices.until_ready(are_connected, DEVICES_READY_S)
        self._screen.part("devices", f"{len(self._state.devices)} simulated: {kinds(self._state)}")
        return devices

    async def _watch(self, *processes: DemoProcess) -> None:
        """Shows the last line, and starts again what ends by itself or by somebody's hand."""
        with live({}) as line:
            watching = [asyncio.create_task(self._revive(process)) for process in processes]
            try:
                while not any(task.done() for task in watching):
                    fleet = self._fleet()
                    p99_ms = fleet.puback_p99_ms if fleet else None
                    proxy = self._proxy.state() if self._proxy else None
                    text = live_line(await self._accounting(), p99_ms, proxy=proxy, width=line_width())
                    line.show([], text)
                    await asyncio.wait(watching, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in watching:
                    task.cancel()
                done = await asyncio.gather(*watching, return_exceptions=True)
        for result in done:
            if isinstance(result, StartError):
                raise result

    async def _revive(self, process: DemoProcess) -> None:
        """Any process may be killed at any moment: that is to be tried out."""
        ends: list[float] = []
        while True:
            code = await process.wait()
            now_s = time.monotonic()
            ends = [at for at in ends if now_s - at < RESTARTS_WITHIN_S] + [now_s]
            if len(ends) > RESTARTS_MAX:
                raise process.ended()
            self._screen.trouble(process.name, f"{how_it_ended(code)}; starting it again")
            await asyncio.sleep(RESTART_S)
            await process.start()
            self._state.pids[process.name] = process.pid
            self._keep()

    async def _end(self) -> None:
        """In order: who sends, who takes, who stores."""
        if self._processes:
            self._screen.note()
        for process in reversed(self._processes):
            ended_well, how = await process.stop()
            (self._screen.part if ended_well else self._screen.trouble)(process.name, how)
        if self._unit is not None:
            await self._unit.stop()
        if self._cable is not None:
            self._cable.close()
        if self._control is not None:
            await self._control.close()
        if self._proxy is not None:
            await self._proxy.close()
        await self._client.aclose()
        self._state.pids = {}
        if self._state.api:
            self._keep()

    async def _start(self, name: str, command: list[str]) -> DemoProcess:
        process = DemoProcess(name, command, self._log(name))
        await process.start()
        self._processes.append(process)
        self._state.pids[name] = process.pid
        self._keep()
        return process

    async def _answers(self, url: str) -> bool:
        try:
            return (await self._client.get(url)).is_success
        except httpx.HTTPError:
            return False

    async def _accounting(self) -> GatewayAccounting | None:
        try:
            return await gateway_accounting(self._state.status, self._client)
        except UnreachableError:
            return None

    def _fleet(self) -> FleetState | None:
        try:
            return msgspec.json.decode((self._folder / "fleet.json").read_bytes(), type=FleetState)
        except FileNotFoundError:
            return None

    def _keep(self) -> None:
        write_state(self._folder, self._state)

    def _log(self, name: str) -> Path:
        return self._folder / "logs" / f"{name}.log"

    def _cloud_command(self, *words: str) -> list[str]:
        json = ["--json"] if words[0] == "user" else []
        return [program("tidegate-cloud"), *words, *json, "--config", str(self._folder / "cloud.toml")]

    def _gateway_command(self, *words: str) -> list[str]:
        return [program("tidegate-edge"), *words, "--config", str(self._folder / "gateway.toml")]


def program(name: str) -> str:
    """A command of ours, beside the Python that runs this."""
    return str(Path(sys.executable).parent / name)


def take_lock(path: Path) -> int:
    """Holds the pid file for as long as this process lives. Raises UserError if another demo does."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.read(lock, 20).decode().strip()
        os.close(lock)
        raise UserError(
            f"the demo is running already, as process {pid}",
            "end it by Ctrl-C in its terminal; or use what it printed there",
        ) from None
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())
    return lock


def toml(tree: Mapping[str, object]) -> bytes:
    """The few kinds of TOML that our configuration files need: text, numbers, booleans, tables, lists of tables, and
    what is below those inline."""
    lines: list[str] = []
    tables: list[tuple[str, Mapping[str, object]]] = []
    for name, value in tree.items():
        if isinstance(value, Mapping):
            tables.append((f"[{name}]", value))
        elif isinstance(value, list):
            tables += [(f"[[{name}]]", table) for table in value]
        else:
            lines.append(f"{name} = {_toml_value(value)}")
    for heading, table in tables:
        lines += ["", heading, *(f"{name} = {_toml_value(value)}" for name, value in table.items())]
    return "\n".join(lines).encode() + b"\n"


def _toml_value(value: object) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{name} = {_toml_value(one)}" for name, one in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    # A JSON string is a TOML basic string, and a JSON number a TOML one.
    return msgspec.json.encode(value).decode()
