"""The whole way: MQTT to rows in history and current, cloud and gateway as processes, the load on the same cores."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import msgspec
import uvloop

from benchmarks.mqtt import Load, MqttFigures
from benchmarks.row import Row
from benchmarks.watch import Watch, quantile
from tests.end_to_end.site import Site

DEVICES: Final = 200
RATE: Final = 30_000
SUSTAINED_S: Final = 60.0
IN_FLIGHT: Final = 10
SLOW_RATE: Final = 100
SLOW_S: Final = 15.0
SETTLE_S: Final = 60.0
MIB: Final = 1024 * 1024


def rows(seconds: float) -> list[Row]:
    """`seconds`: of the sustained load; the design asks for 60."""
    return uvloop.run(_measure(seconds))


async def _measure(seconds: float) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        Path(folder).chmod(0o755)
        async with Site(Path(folder)) as site:
            await site.set_up()
            idle = site.gateway.rss_bytes() / MIB
            await add_devices(site, "bench-{}", DEVICES)
            latency = await _latency(site)
            sustained = await _sustained(site, seconds)
            started = time.monotonic()
            await site.gateway.stop()
            started = time.monotonic()
            await site.start_gateway()
            ready_s = time.monotonic() - started
        return [
            *sustained,
            *latency,
            Row("gateway memory, idle", idle, "MiB", goal=70, at_most=True),
            Row("gateway start to ready", ready_s, "s", goal=2, at_most=True),
        ]


async def add_devices(site: Site, names: str, count: int) -> None:
    """On the network `plain`; `names` takes a number."""
    for number in range(count):
        name = names.format(number)
        aliases = [{"network_id": "plain", "alias_key": "serial", "alias": name}]
        await site.post("devices", {"system_id": "site", "blueprint_id": "pump", "name": name, "aliases": aliases})


async def generate(site: Site, **settings: Any) -> MqttFigures:
    """Runs a load against the site's network `plain`, in a process of its own."""
    load = Load(site.mqtt_ports["plain"], password=site.secrets["plain"], server_pid=site.gateway.pid, **settings)
    command = ["-m", "benchmarks.mqtt", "load", msgspec.json.encode(load).decode()]
    code, output = await _python(*command)
    if code:
        raise RuntimeError(output)
    return msgspec.json.decode(output, type=MqttFigures)


async def _python(*arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    return process.returncode or 0, (output or errors).decode()


async def _stored(site: Site) -> int:
    total: dict[str, int] = (await site.get("accounting"))["total"]
    return total["stored"]


async def _sustained(site: Site, seconds: float) -> list[Row]:
    """RATE for the whole time; what reaches the databases meanwhile counts, and what waits when it ends is shown."""
    before = await _stored(site)
    loading = asyncio.create_task(
        generate(site, connections=DEVICES, in_flight=IN_FLIGHT, seconds=seconds, rate=RATE, warm_up_s=1.0)
    )
    figures = await loading
    ended = time.monotonic()
    status = await site.gateway_status()
    stored = await _stored(site) - before
    offered = status["totals"]["logged"] - before
    drained = await _drained(site, before, status["totals"]["logged"])
    cpu = figures.server_us_per_message
    return [
        Row(
            f"end to end, {DEVICES} devices, {RATE:,}/s offered for {seconds:.0f} s",
            (offered if drained - ended < 1.0 else stored) / (seconds + 1.0),
            "messages/s",
            goal=RATE * 0.99,
            note=f"{offered - stored:,} waiting when the load ended, stored {drained - ended:.1f} s later",
        ),
        Row("PUBACK p50 under that load", figures.p50_ms, "ms"),
        Row("PUBACK p99 under that load", figures.p99_ms, "ms"),
        Row("gateway CPU under that load", cpu, "µs/message", goal=10, at_most=True),
    ]


async def _drained(site: Site, before: int, logged: int) -> float:
    async with asyncio.timeout(SETTLE_S):
        while await _stored(site) < logged:
            await asyncio.sleep(0.05)
    return time.monotonic()


async def _latency(site: Site) -> list[Row]:
    """SLOW_RATE messages a second of one device; a reader asks the API for the newest all the time."""
    async with Watch(site, "plain:serial:bench-0") as watch:
        await generate(site, connections=1, in_flight=1, seconds=SLOW_S, rate=SLOW_RATE)
    ordered = watch.sorted_ms()
    return [
        Row("publish to readable in history, 100/s, p50", quantile(ordered, 0.5), "ms", goal=30, at_most=True),
        Row("publish to readable in history, 100/s, p99", quantile(ordered, 0.99), "ms", goal=100, at_most=True),
    ]
