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
from firmware_sim.faults.fault import Kind, ProxyState
from firmware_sim.run_folder import DemoState
from firmware_sim.status_line import UNBOUNDED, fitting

_PART: Final = 14
_PROGRAMS: Final = ".venv/bin"


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
        for line in welcome_lines(state, folder, has_mosquitto=shutil.which("mosquitto_pub") is not None):
            typer.echo(line)


def welcome_lines(state: DemoState, folder: Path, *, has_mosquitto: bool) -> Iterator[str]:
    """The demo is ready: where everything is, and commands that work as they stand."""
    api = state.api.removeprefix("http://")
    shown = _shown(folder)
    bench = state.bench
    assert bench is not None
    device = f"{bench.network}:{bench.alias_key}:{bench.name}"
    auth = f"curl -sH @{shown}/auth"
    elsewhere = "" if shown == DEFAULT_RUN_FOLDER else f" --run {shown}"
    mosquitto = "" if has_mosquitto else "   (first: apt install mosquitto-clients)"
    yield ""
    yield f"Tidegate is running. Ctrl-C stops it; data stays in {shown}/ (make reset deletes it)."
    yield ""
    yield f"  {'API':<{_PART}}{state.api}/docs    {state.user} / {state.password}"
    yield f"  {'Gateway':<{_PART}}{state.status:<{len(state.api) + 5}}    status and live tail"
    yield ""
    yield "In another terminal, here:"
    for name, command in (
        ("send", f"{_PROGRAMS}/tidegate-sim send {bench.name} temperature=71.5{elsewhere}"),
        (
            "or your own",
            f"mosquitto_pub -p {state.mqtt_port} -u {bench.name} -P {bench.password} -q 1 -t up"
            f" -m '{{\"temperature\":71.5}}'{mosquitto}",
        ),
        ("current", f"{auth} {api}/api/v1/devices/{device}/current"),
        ("history", f"{auth} '{api}/api/v1/devices/{device}/history?last=10m'"),
        ("watch", f"{_PROGRAMS}/tidegate-edge tail --config {shown}/gateway.toml"),
        ("pull the plug", f"{_PROGRAMS}/tidegate-sim unplug 60s{elsewhere}"),
        ("prove it", f"{_PROGRAMS}/tidegate-sim verify{elsewhere}"),
    ):
        yield f"  {name:<{_PART}}{command}"
    yield ""


def live_line(
    accounting: GatewayAccounting | None,
    p99_ms: float | None,
    *,
    proxy: ProxyState | None = None,
    width: int = UNBOUNDED,
) -> str:
    """The last line, in `width` columns. The p99 is what the devices see: from making a message to its PUBACK."""
    plug = _plug(proxy)
    if accounting is None:
        return fitting(width, f"{plug}the gateway does not answer; what devices send waits in them")
    p99 = "" if p99_ms is None else f" · PUBACK p99 {p99_ms:.0f} ms"
    brief = plug + accounting.line(brief=True)
    return fitting(width, plug + accounting.line() + p99, brief + p99, brief)


def _plug(proxy: ProxyState | None) -> str:
    """What somebody does to the link, in words."""
    if proxy is None or proxy.fault is Kind.NONE:
        return ""
    what = "plug is out" if proxy.fault is Kind.CUT else f"link has a {proxy.fault.replace('_', ' ')}"
    return f"{what} · " if proxy.remaining_s is None else f"{what}, {proxy.remaining_s:.0f} s · "


def kinds(state: DemoState) -> str:
    """12 pumps, 8 tanks"""
    counted = Counter(device.profile for device in state.devices)
    return ", ".join(f"{count} {name}{'s' if count > 1 else ''}" for name, count in counted.items())


def size(count: int) -> str:
    """Bytes for people, in units of 1,000."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count} {unit}"
        count //= 1000
    return f"{count} GB"


def _shown(folder: Path) -> Path:
    """As one would type it."""
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
