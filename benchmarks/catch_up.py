"""An outage's end: a backlog drains into history and current while new messages flow, everything on the same cores."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import msgspec
import uvloop

from benchmarks.end_to_end import add_devices, generate
from benchmarks.row import Row
from benchmarks.watch import Watch, quantile
from tests.end_to_end.site import Site

BACKLOG: Final = 1_000_000
LIVE_RATE: Final = 500
LIVE_DEVICES: Final = 5
IDLE_S: Final = 20.0
SPEED_GOAL: Final = 50_000
BURST_S: Final = 2.0
BURST_LEAST_S: Final = 0.2
BURST_RATE: Final = 600_000
"""Messages a second, about: the last burst is not to make the backlog much larger than asked for."""
DRAIN_MAX_S: Final = 180.0
LOOK_S: Final = 0.1
MIB: Final = 1024 * 1024
LIVE_NAME: Final = "live-{}"
WATCHED: Final = "plain:serial:live-0"


def rows(scale: float) -> list[Row]:
    """`scale`: 1 is a backlog of BACKLOG messages."""
    return uvloop.run(_measure(scale))


class _Drain(msgspec.Struct, frozen=True):
    backlog: int
    seconds: float
    began_ms: float
    ended_ms: float
    wire_bytes: int
    records: int
    memory_peak_bytes: int


async def _measure(scale: float) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        Path(folder).chmod(0o755)
        async with Site(Path(folder)) as site:
            await site.set_up()
            await add_devices(site, "bench-{}", 20)
            await add_devices(site, LIVE_NAME, LIVE_DEVICES)
            async with Watch(site, WATCHED) as watch:
                await _live(site, max(IDLE_S * scale, 5.0))
                idle = watch.sorted_ms()
            await _buffer(site, int(BACKLOG * scale))
            memory = site.gateway.rss_bytes()
            drain, live = await _drain(site)
    goal_ms = 2 * quantile(idle, 0.99)
    return [
        Row("live beside nothing, 500/s, p50", quantile(idle, 0.5), "ms"),
        Row("live beside nothing, 500/s, p99", quantile(idle, 0.99), "ms"),
        Row(
            f"catch-up of {drain.backlog:,} messages, live traffic going on",
            drain.backlog / drain.seconds,
            "messages/s",
            goal=SPEED_GOAL,
            note=f"drained in {drain.seconds:.1f} s",
        ),
        Row("live during the catch-up, p50", quantile(live, 0.5), "ms"),
        Row(
            "live during the catch-up, p99",
            quantile(live, 0.99),
            "ms",
            goal=goal_ms,
            at_most=True,
            baseline="beside nothing",
            baseline_measured=quantile(idle, 0.99),
            note=f"{len(live):,} messages seen",
        ),
        Row("bytes on the wire, catch-up", drain.wire_bytes / drain.records, "B/message", goal=15, at_most=True),
        Row("gateway memory before the catch-up", memory / MIB, "MiB"),
        Row("gateway memory, its peak", drain.memory_peak_bytes / MIB, "MiB"),
    ]


async def _live(site: Site, seconds: float) -> None:
    await generate(
        site, connections=LIVE_DEVICES, in_flight=1, seconds=seconds, rate=LIVE_RATE, user_name=LIVE_NAME, warm_up_s=0.0
    )


async def _buffer(site: Site, messages: int) -> None:
    """The cloud stops, and the gateway goes on recording."""
    await site.cloud.stop()
    while (missing := messages - (await site.gateway_status())["totals"]["pending"]) > 0:
        seconds = max(min(missing / BURST_RATE, BURST_S), BURST_LEAST_S)
        await generate(site, connections=20, in_flight=100, seconds=seconds, user_name="bench-{}", warm_up_s=0.0)


async def _drain(site: Site) -> tuple[_Drain, list[float]]:
    """From the first message that the cloud has of the backlog to the last one in history."""
    before = await site.gateway_status()
    backlog, memory = before["totals"]["pending"], 0
    await site.start_cloud()
    stored_before = await _stored(site)
    live: asyncio.Task[None] | None = None
    began_s = began_ms = 0.0
    async with Watch(site, WATCHED) as watch, asyncio.timeout(DRAIN_MAX_S):
        live = asyncio.create_task(_live(site, DRAIN_MAX_S))
        while True:
            memory = max(memory, site.gateway.rss_bytes())
            stored = await _stored(site) - stored_before
            if stored and not began_s:
                began_s, began_ms = time.monotonic(), time.time() * 1000
            status: dict[str, Any] = await site.gateway_status()
            old = await site.get("accounting")
            waiting = old["total"]["records_in_pipeline"] + old["total"]["in_pipeline"]
            if stored >= backlog and status["totals"]["pending"] < LIVE_RATE and waiting < LIVE_RATE:
                break
            await asyncio.sleep(LOOK_S)
        seconds, ended_ms = time.monotonic() - began_s, time.time() * 1000
        live.cancel()
        await asyncio.gather(live, return_exceptions=True)
        found = watch.sorted_ms(began_ms, ended_ms)
    wire = status["link"]["wire_bytes_sent"] - before["link"]["wire_bytes_sent"]
    records = status["totals"]["accepted"] - before["totals"]["accepted"]
    return _Drain(backlog, seconds, began_ms, ended_ms, wire, records, memory), found


async def _stored(site: Site) -> int:
    total: dict[str, int] = (await site.get("accounting"))["total"]
    return total["stored"]
