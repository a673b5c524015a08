"""What the demo says: a line a part, how to go on, and a line that lives."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import typer

from firmware_sim.cli.options import DEFAULT_RUN_FOLDER
from firmware_sim.cloud_api import GatewayAccounting
from firmware_sim.demo.benches import WAYS
from firmware_sim.demo.commands import PROGRAMS, VALUE, Find, missing_package
from firmware_sim.faults.fault import Kind, ProxyState
from firmware_sim.run_folder import DemoState
from firmware_sim.status_line import UNBOUNDED, fitting

_PART: Final = 14


class Screen:
    """Lines on standard output."""

    def part(self, name: str, text: str) -> None:
        """A part that is there."""
        typer.echo(f"  {name:<{_PART}}✓ {text}")

    def trouble(self, name: str, text: str) -> None:
        typer.echo(f"  {name:<{_PART}}✗ {text}")

    def note(self, text: str = "") -> None:
        typer.echo(text)

    def log_tail(self, name: str, path: Path, lines: list[str]) -> None:
        """What a process said last, before the error that follows."""
        typer.echo(f"\n  {name} said last ({path}):", err=True)
        for line in lines:
            typer.echo(f"    {line}", err=True)
        typer.echo(err=True)

    def welcome(self, state: DemoState, folder: Path) -> None:
        for line in welcome_lines(state, folder):
            typer.echo(line)


def welcome_lines(state: DemoState, folder: Path, find: Find = shutil.which) -> Iterator[str]:
    """The demo is ready: where everything is, and commands that work as they stand."""
    api = state.api.removeprefix("http://")
    run = shown(folder)
    devices = f"{api}/api/v1/devices/{state.network}:{state.alias_key}"
    names = {protocol: bench.device.name for protocol, bench in state.benches.items()}
    auth = f"curl -sH @{run}/auth"
    elsewhere = "" if run == str(DEFAULT_RUN_FOLDER) else f" --run {run}"
    yield ""
    yield f"Tidegate is running. Ctrl-C stops it; data stays in {run}/ (make reset deletes it)."
    yield ""
    yield f"  {'API':<{_PART}}{state.api}/docs    {state.user} / {state.password}"
    yield f"  {'Gateway':<{_PART}}{state.status:<{len(state.api) + 5}}    status and live tail"
    yield ""
    yield "In another terminal, here:"
    for name, line in (
        ("send", f"{PROGRAMS}/tidegate-sim send {names['mqtt']} temperature={VALUE}{elsewhere}"),
        ("current", f"{auth} {devices}:{names['mqtt']}/current"),
        ("history", f"{auth} '{devices}:{names['mqtt']}/history?last=10m'"),
        ("watch", f"{PROGRAMS}/tidegate-edge tail --config {run}/gateway.toml"),
        ("pull the plug", f"{PROGRAMS}/tidegate-sim unplug 60s{elsewhere}"),
        ("prove it", f"{PROGRAMS}/tidegate-sim verify{elsewhere}"),
    ):
        yield f"  {name:<{_PART}}{line}"
    yield ""
    yield "One value by each protocol:"
    for protocol, bench in state.benches.items():
        package = missing_package(protocol, find)
        hint = f"   # first: apt install {package}" if package else ""
        yield f"  {WAYS[protocol].title:<{_PART}}{bench.command}{hint}"
    yield f"  {'see them':<{_PART}}{auth} -w '\\n' '{devices}:{{{','.join(names.values())}}}/current'"
    yield ""


def live_line(
    accounting: GatewayAccounting | None,
    p99_ms: float | None,
    *,
    proxy: ProxyState | None = None,
    width: int = UNBOUNDED,
) -> str:
    """The last line, in `width` columns. The p99 is what the devices see: from making a message to its PUBACK. Where
    there is room, what each protocol brought since the gateway started."""
    plug = _plug(proxy)
    if accounting is None:
        return fitting(width, f"{plug}the gateway does not answer; what devices send waits in them")
    start = plug + _troubles(accounting)
    p99 = "" if p99_ms is None else f" · PUBACK p99 {p99_ms:.0f} ms"
    full, brief = start + accounting.line(), start + accounting.line(brief=True)
    return fitting(width, full + p99 + _brought(accounting), full + p99, brief + p99, brief)


def _brought(accounting: GatewayAccounting) -> str:
    counted = Counter({listener.kind: 0 for listener in accounting.listeners})
    for listener in accounting.listeners:
        counted[listener.kind] += listener.recorded
    return "".join(f" · {way.title} {counted[kind]:,}" for kind, way in WAYS.items() if kind in counted)


def _troubles(accounting: GatewayAccounting) -> str:
    """Listeners that nothing comes by; why is on the status page."""
    names = [listener.name for listener in accounting.listeners if listener.trouble]
    return f"trouble with {', '.join(names)} · " if names else ""


def _plug(proxy: ProxyState | None) -> str:
    """What somebody does to the link, in words."""
    if proxy is None or proxy.fault is Kind.NONE:
        return ""
    what = "plug is out" if proxy.fault is Kind.CUT else f"link has a {proxy.fault.replace('_', ' ')}"
    return f"{what} · " if proxy.remaining_s is None else f"{what}, {proxy.remaining_s:.0f} s · "


def kinds(state: DemoState) -> str:
    """12 pumps, 8 tanks; and one each by CoAP, …"""
    mqtt = Counter(device.profile for device in state.devices if device.protocol == "mqtt")
    others = {WAYS[device.protocol].title: None for device in state.devices if device.protocol != "mqtt"}
    shown = ", ".join(f"{count} {name}{'s' if count > 1 else ''}" for name, count in mqtt.items())
    return f"{shown} by MQTT; one each by {', '.join(others)}"


def listeners(state: DemoState) -> str:
    """MQTT 1884, CoAP 5683, …, serial .run/serial/bench"""
    return ", ".join(
        f"{WAYS[protocol].title} {bench.device.port or shown(Path(bench.line))}"
        for protocol, bench in state.benches.items()
    )


def size(count: int) -> str:
    """Bytes for people, in units of 1,000."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count} {unit}"
        count //= 1000
    return f"{count} GB"


def shown(path: Path) -> str:
    """As one would type it."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
