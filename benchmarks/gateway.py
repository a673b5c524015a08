"""MQTT to durable acknowledgement: a whole gateway on one core, the load on the other, the cloud away.

The baseline is the same listener in front of a bus that answers at once: what the log's sync and everything behind the
listener cost stands between the two.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import psutil
import uvloop

from benchmarks.mqtt import IDLE, Load, MqttFigures, idle_bytes, measure, serve
from benchmarks.row import Row
from tests.end_to_end.site import Site

CLOSED_LOOPS: Final = ((200, 1, 1, 40_000), (20, 100, 1, 200_000), (200, 1, 2, 20_000), (20, 100, 2, 100_000))
"""Connections, in flight, QoS, goal. Sessions of QoS 2 outlive their connections: what is noted of them counts."""
IDLE_MB_MAX: Final = 250
PACED: Final = ((10_000, 10.0, 30.0), (50_000, 20.0, 10.0))
"""Messages a second, goal for PUBACK p99 in ms, goal for the gateway's CPU in µs a message."""
MIB: Final = 1024 * 1024


def rows(seconds: float) -> list[Row]:
    return uvloop.run(_measure(seconds))


async def _measure(seconds: float) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        Path(folder).chmod(0o755)
        async with Site(Path(folder)) as site:
            await site.set_up()
            await site.cloud.stop()
            _pin(site.gateway.pid)
            port, secret = site.mqtt_ports["plain"], site.secrets["plain"]

            async def ours(**settings: Any) -> MqttFigures:
                load = Load(port, password=secret, server_pid=site.gateway.pid, seconds=seconds, **settings)
                return await asyncio.to_thread(measure, load)

            found = [await _closed_loop(ours, seconds, *shape) for shape in CLOSED_LOOPS]
            for rate, p99_ms, cpu_us in PACED:
                found += await _paced(ours, seconds, rate, p99_ms, cpu_us)
            pending = (await site.gateway_status())["totals"]["pending"]
            memory = site.gateway.rss_bytes() / MIB
            found.append(Row(f"gateway memory, {pending:,} buffered", memory, "MiB", goal=70, at_most=True))
            loaded, bare = await asyncio.to_thread(idle_bytes, IDLE)
            note = f"{bare / 1e6:.0f} MB of it without any; sessions that are kept"
            stage = f"memory of a listener, {IDLE:,} idle connections"
            found.append(Row(stage, loaded / 1e6, "MB", goal=IDLE_MB_MAX, at_most=True, note=note))
            return found


async def _closed_loop(
    ours: Callable[..., Awaitable[MqttFigures]], seconds: float, connections: int, in_flight: int, qos: int, goal: int
) -> Row:
    figures = await ours(connections=connections, in_flight=in_flight, qos=qos, kept=qos == 2)
    with serve() as (port, pid):
        _pin(pid)
        load = Load(port, connections, in_flight, seconds, server_pid=pid, qos=qos, kept=qos == 2)
        bare = await asyncio.to_thread(measure, load)
    return Row(
        f"MQTT to durable {'PUBACK' if qos == 1 else 'PUBCOMP'}, {connections} devices, {in_flight} in flight",
        figures.messages_per_s,
        "messages/s",
        goal=goal,
        baseline="listener alone, nothing recorded",
        baseline_measured=bare.messages_per_s,
        note=f"p99 {figures.p99_ms:.1f} ms, {figures.server_us_per_message:.1f} µs of CPU a message",
    )


async def _paced(
    ours: Callable[..., Awaitable[MqttFigures]], seconds: float, rate: int, p99_ms: float, cpu_us: float
) -> list[Row]:
    figures = await ours(connections=200, in_flight=1, rate=rate)
    return [
        Row(f"PUBACK p99 at {rate:,}/s", figures.p99_ms, "ms", goal=p99_ms, at_most=True),
        Row(f"gateway CPU at {rate:,}/s", figures.server_us_per_message, "µs/message", goal=cpu_us, at_most=True),
    ]


def _pin(pid: int) -> None:
    """To the last core, all threads of it."""
    core = max(os.sched_getaffinity(0))
    for thread in psutil.Process(pid).threads():
        os.sched_setaffinity(thread.id, {core})
