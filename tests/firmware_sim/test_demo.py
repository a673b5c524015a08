"""The demo's own parts: what it prints, what it writes, how it treats its processes. The whole is tested end to end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec
import pytest

from firmware_sim.cli.unplug import progress_line
from firmware_sim.cloud_api import (
    GatewayAccounting,
    GatewayLink,
    GatewayListener,
    GatewayLog,
    GatewayRegistry,
    GatewayTotals,
)
from firmware_sim.demo.app import take_lock, toml
from firmware_sim.demo.benches import WAYS, add_benches, place, sections
from firmware_sim.demo.commands import command
from firmware_sim.demo.furnish import roster
from firmware_sim.demo.ports import free_port
from firmware_sim.demo.process import DemoProcess, StartError, end_stale
from firmware_sim.demo.screen import kinds, listeners, live_line, shown, size, welcome_lines
from firmware_sim.devices.roster import RosterDevice, check_roster
from firmware_sim.faults.fault import Direction, Kind, ProxyState
from firmware_sim.run_folder import Bench, DemoState
from tidegate.console import UserError

STATE = DemoState(
    api="http://127.0.0.1:8080",
    password="gull-harbour-41",
    status="http://127.0.0.1:8081",
    devices=roster(20, "demo", "serial"),
)
TOTALS = GatewayTotals(logged=12480, accepted=12460, pending=20, evicted=0, damaged=0)


def laid(folder: Path, *, clients: bool = True) -> DemoState:
    """With a bench at the usual ports, and its commands."""
    state = msgspec.structs.replace(STATE, benches={})
    for protocol, way in WAYS.items():
        device = RosterDevice(way.bench, protocol=protocol, host="127.0.0.1", port=way.port)
        if way.has_credential:
            device = msgspec.structs.replace(device, user=way.bench, password="k3v9")
        bench = Bench(device, line=str(folder / "serial" / "bench"))
        bench.command = command(bench, shown, (lambda name: name == "coap-client-notls") if clients else nothing)
        state.benches[protocol] = bench
    return state


def nothing(_: str) -> None:
    return None


def test_the_welcome_is_what_the_readme_shows() -> None:
    folder = Path.cwd() / ".run"
    lines = list(welcome_lines(laid(folder), folder, lambda name: name))
    assert lines == [
        "",
        "Tidegate is running. Ctrl-C stops it; data stays in .run/ (make reset deletes it).",
        "",
        "  API           http://127.0.0.1:8080/docs    admin / gull-harbour-41",
        "  Gateway       http://127.0.0.1:8081         status and live tail",
        "",
        "In another terminal, here:",
        "  send          .venv/bin/tidegate-sim send bench-01 temperature=71.5",
        "  current       curl -sH @.run/auth 127.0.0.1:8080/api/v1/devices/demo:serial:bench-01/current",
        "  history       curl -sH @.run/auth '127.0.0.1:8080/api/v1/devices/demo:serial:bench-01/history?last=10m'",
        "  watch         .venv/bin/tidegate-edge tail --config .run/gateway.toml",
        "  pull the plug .venv/bin/tidegate-sim unplug 60s",
        "  prove it      .venv/bin/tidegate-sim verify",
        "",
        "One value by each protocol:",
        "  MQTT          mosquitto_pub -p 1884 -u bench-01 -P k3v9 -q 1 -t up -m '{\"temperature\":71.5}'",
        "  CoAP          coap-client-notls -m post -t json -e '{\"temperature\":71.5}'"
        " 'coap://127.0.0.1:5683/bench-coap?key=k3v9'",
        "  HTTP          curl -si -u bench-http:k3v9 127.0.0.1:8082/bench-http -d '{\"temperature\":71.5}'",
        "  TCP           printf 'ID bench-tcp\\n{\"temperature\":71.5}\\n' | nc -w1 127.0.0.1 5000",
        "  UDP           echo '{\"temperature\":71.5}' | nc -u -w1 127.0.0.1 5000",
        "  serial        echo '{\"temperature\":71.5}' > .run/serial/bench",
        "  Modbus        .venv/bin/python -c 'from pymodbus.client import ModbusTcpClient as Unit;"
        ' Unit("127.0.0.1", port=1502).write_register(0, 715)\'',
        "  see them      curl -sH @.run/auth -w '\\n' '127.0.0.1:8080/api/v1/devices/demo:serial:"
        "{bench-01,bench-coap,bench-http,bench-tcp,bench-udp,bench-serial,bench-modbus}/current'",
        "",
    ]


def test_a_line_whose_client_is_missing_says_how_to_get_it_and_runs_as_it_stands_then() -> None:
    state = laid(Path("/x"), clients=False)
    lines = {line.split()[0]: line for line in welcome_lines(state, Path("/x"), nothing) if line.startswith("  ")}
    for title, package in (("MQTT", "mosquitto-clients"), ("HTTP", "curl"), ("TCP", "netcat-openbsd")):
        assert lines[title].endswith(f"   # first: apt install {package}")
    assert lines["CoAP"].split()[1] == ".venv/bin/aiocoap-client"
    assert not any("apt install" in lines[title] for title in ("CoAP", "serial", "Modbus"))


def test_listeners_are_named_with_their_places() -> None:
    assert listeners(laid(Path.cwd() / ".run")) == (
        "MQTT 1884, CoAP 5683, HTTP 8082, TCP 5000, UDP 5000, serial .run/serial/bench, Modbus 1502"
    )


def test_other_ports_are_taken_where_the_usual_ones_are_not_free(tmp_path: Path) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(("127.0.0.1", free_port(WAYS["coap"].port, family=socket.SOCK_DGRAM)))
        state = DemoState()
        add_benches(state)
        place(state, tmp_path, [WAYS["http"].port])
        ports = {protocol: bench.device.port for protocol, bench in state.benches.items()}
        assert ports["coap"] > datagrams.getsockname()[1]
        assert ports["http"] > WAYS["http"].port
        assert ports["serial"] == 0
        assert len({ports[protocol] for protocol in ("mqtt", "http", "tcp", "modbus")}) == 4


def test_simulated_devices_use_the_benches_listeners_where_these_tell_devices_apart(tmp_path: Path) -> None:
    state = DemoState(devices=roster(2, "demo", "serial"))
    add_benches(state)
    place(state, tmp_path, [])
    check_roster([*state.devices, *(bench.device for bench in state.benches.values())], "the demo")
    found = sections(state)
    assert {kind: len(listeners) for kind, listeners in found.items()} == {
        "mqtt": 1, "coap": 1, "http": 1, "tcp": 1, "udp": 2, "serial": 2, "modbus": 2
    }  # fmt: skip
    by_name = {device.name: device for device in state.devices}
    assert by_name["pump-tcp"].port == found["tcp"][0]["port"]
    assert by_name["boat-udp"].port == found["udp"][1]["port"] != found["udp"][0]["port"]
    assert by_name["meter-serial"].path == found["serial"][1]["port"] != found["serial"][0]["port"]


def test_the_last_line() -> None:
    accounting = GatewayAccounting(TOTALS, True, GatewayLink("up", None), GatewayLog(0, 1), GatewayRegistry(21))
    assert live_line(accounting, 21.3) == (
        "logged 12,480 = accepted 12,460 + pending 20 + evicted 0 + damaged 0 · link up · PUBACK p99 21 ms"
    )
    assert "does not answer" in live_line(None, None)


def test_the_last_line_says_what_each_protocol_brought_and_which_listener_is_in_trouble() -> None:
    accounting = GatewayAccounting(
        TOTALS, True, GatewayLink("up", None), GatewayLog(0, 1), GatewayRegistry(21),
        [
            GatewayListener("mqtt", "mqtt", 12470, ""), GatewayListener("serial", "serial", 3, ""),
            GatewayListener("serial-2", "serial", 4, "gone"), GatewayListener("coap", "coap", 3, ""),
        ],
    )  # fmt: skip
    line = live_line(accounting, 21.3)
    assert line.startswith("trouble with serial-2 · logged 12,480 =")
    assert line.endswith(" · PUBACK p99 21 ms · MQTT 12,470 · CoAP 3 · serial 7")
    assert live_line(accounting, 21.3, width=len(line) - 1).endswith("PUBACK p99 21 ms")


def test_the_last_line_says_that_the_plug_is_out() -> None:
    accounting = GatewayAccounting(TOTALS, True, GatewayLink("down", None), GatewayLog(0, 1), GatewayRegistry(21))
    cut = ProxyState(Kind.CUT, Direction.BOTH, 38.2, "", 0, 0, 0, 0, 0)
    assert live_line(accounting, 21.3, proxy=cut).startswith("plug is out, 38 s · logged 12,480 =")
    assert live_line(None, None, proxy=cut).startswith("plug is out, 38 s · the gateway does not answer")
    assert "plug" not in live_line(accounting, 21.3, proxy=msgspec.structs.replace(cut, fault=Kind.NONE))


def test_the_last_line_fits_the_terminal_and_leaves_out_what_says_least() -> None:
    accounting = GatewayAccounting(TOTALS, True, GatewayLink("up", None), GatewayLog(0, 1), GatewayRegistry(21))
    brief = "logged 12,480 = accepted 12,460 + pending 20 · link up"
    assert live_line(accounting, 21.3, width=80) == brief + " · PUBACK p99 21 ms"
    assert live_line(accounting, 21.3, width=60) == brief
    assert live_line(accounting, 21.3, width=20) == brief[:19] + "…"
    losing = msgspec.structs.replace(accounting, totals=msgspec.structs.replace(TOTALS, evicted=7))
    assert "evicted 7 · link" in live_line(losing, 21.3, width=70)


def test_the_countdown_fits_the_terminal() -> None:
    accounting = GatewayAccounting(TOTALS, True, GatewayLink("up", 12.0), GatewayLog(0, 1), GatewayRegistry(21))
    what = "plugged in · drained 1,234 in 12 s"
    assert "damaged 0 · link up · drained in about 12 s" in progress_line(what, accounting, 200)
    assert progress_line(what, accounting, 90) == f"{what} · pending 20 · link up · drained in about 12 s"
    assert progress_line(what, accounting, 80) == f"{what} · pending 20 · link up"
    assert progress_line(what, None, 80) == f"{what} · the gateway does not answer"


def test_twenty_devices_speak_mqtt_and_one_each_other_protocol() -> None:
    assert kinds(STATE) == "12 pumps, 8 tanks by MQTT; one each by CoAP, HTTP, TCP, UDP, serial, Modbus"
    assert [size(count) for count in (0, 999, 2_000_000, 2_000_000_000)] == ["0 B", "999 B", "2 MB", "2 GB"]


def test_configurations_are_toml() -> None:
    units = [{"unit": 1, "registers": [{"name": "t", "scale": 0.1}, {"write": True}]}, {"unit": 2}]
    tree = {
        "data_dir": 'a "b"\\c', "http": {"port": 8080}, "mqtt": [{"name": "m"}, {"name": "n"}],
        "modbus": [{"units": units}],
    }  # fmt: skip
    assert tomllib.loads(toml(tree).decode()) == tree


def test_a_second_demo_is_refused_and_told_who_runs(tmp_path: Path) -> None:
    lock = take_lock(tmp_path / "demo.pid")
    with pytest.raises(UserError, match=f"running already, as process {os.getpid()}"):
        take_lock(tmp_path / "demo.pid")
    os.close(lock)
    os.close(take_lock(tmp_path / "demo.pid"))


def test_a_taken_port_is_passed_over() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert free_port(port) > port
    assert free_port(port) == port
    assert free_port(port, {port}) > port


def test_a_port_that_another_demo_has_chosen_is_passed_over_before_anybody_listens() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    choose = f"from firmware_sim.demo.ports import free_port; print(free_port({port}), flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", choose], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert int(other.stdout.readline()) == port
        assert free_port(port) > port
        other.communicate(b"\n")
    assert free_port(port) == port


async def ready() -> bool:
    return True


async def never() -> bool:
    return False


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


@pytest.mark.servers
async def test_a_process_that_dies_at_start_is_reported_with_its_last_words(tmp_path: Path) -> None:
    process = DemoProcess("cloud", python("print('no disk'); raise SystemExit(3)"), tmp_path / "logs" / "cloud.log")
    await process.start()
    with pytest.raises(StartError, match="the cloud ended with exit code 3") as caught:
        await process.until_ready(never, 30.0)
    assert caught.value.tail == ["no disk"]
    assert str(tmp_path / "logs" / "cloud.log") in caught.value.remedy


@pytest.mark.servers
async def test_a_process_that_is_not_ready_in_time_is_reported(tmp_path: Path) -> None:
    process = DemoProcess("gateway", python("import time; time.sleep(60)"), tmp_path / "gateway.log")
    await process.start()
    with pytest.raises(StartError, match="not ready after 0 s"):
        await process.until_ready(never, 0.2)
    process.kill()
    assert await process.wait() == -signal.SIGKILL


@pytest.mark.servers
async def test_a_program_that_is_not_there_is_reported(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="No such file"):
        await DemoProcess("gateway", ["/nowhere/tidegate-edge"], tmp_path / "gateway.log").start()


@pytest.mark.servers
async def test_a_process_is_ended_in_order(tmp_path: Path) -> None:
    code = "import os, signal; signal.signal(15, lambda *_: exit(0)); print(os.getpid(), flush=True); signal.pause()"
    process = DemoProcess("gateway", python(code), tmp_path / "gateway.log")
    await process.start()

    async def is_up() -> bool:
        return process.lines() == [str(process.pid)]

    await process.until_ready(is_up, 30.0)
    assert await process.stop() == (True, "stopped")
    assert await process.stop() == (False, "had ended before")
    await process.start()
    await process.until_ready(is_up, 30.0)  # by what it said since this start, not before
    process.kill()
    await process.wait()


@pytest.mark.servers
async def test_a_process_that_is_stopped_while_it_starts_has_stopped(tmp_path: Path) -> None:
    process = DemoProcess("gateway", python("import time; time.sleep(60)"), tmp_path / "gateway.log")
    await process.start()
    assert await process.stop() == (True, "stopped")


@pytest.mark.servers
async def test_what_a_killed_demo_left_behind_is_ended_and_nothing_else(tmp_path: Path) -> None:
    code = "import time; time.sleep(60)"
    ours = await asyncio.create_subprocess_exec(*python(code, str(tmp_path)))
    other = await asyncio.create_subprocess_exec(*python(code, "elsewhere"))
    reaping = asyncio.create_task(ours.wait())
    assert await end_stale({"cloud": ours.pid, "gateway": other.pid, "demo": os.getpid()}, str(tmp_path)) == ["cloud"]
    assert await reaping == -signal.SIGTERM
    assert other.returncode is None
    other.kill()
    await other.wait()
