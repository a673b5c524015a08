"""Listeners, flooded for a time: what it does to the latency of the device beside, and to the gateway's memory."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Final

from tests.fuzz.listeners.flooding import Beside, Throw, beside, said_by
from tests.fuzz.listeners.site import FuzzSite, Gateway, Place
from tests.fuzz.listeners.targets import LISTENERS, Listener
from tests.fuzz.row import Row, quantile
from tests.fuzz.trial import BrokenError, keep, kept

PART: Final = 100
"""Inputs that are thrown before it is looked at what they did."""
IDLE_SHARE: Final = 0.25
"""Of the time, in which nothing is thrown."""


def flooded(name: str, seconds: float) -> Row:
    """One listener, for a time."""
    # What floods has a process of its own: the neighbour's latency is the gateway's, and not that of who measures it.
    with (
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
        tempfile.TemporaryDirectory(prefix="tidegate-fuzz-") as folder,
    ):
        return asyncio.run(_flooded(LISTENERS[name], seconds, Path(folder), pool))


async def _flooded(target: Listener, seconds: float, folder: Path, pool: ProcessPoolExecutor) -> Row:
    row = Row(target=target.name)
    site = FuzzSite(folder)
    await site.furnish()
    try:
        async with site.running() as gateway, beside(gateway, target, target.name) as flooding:
            await _measure(target, seconds, gateway, flooding, pool, row)
            if not (await gateway.accounting()).closed:
                row.result = "the accounting does not close"
            acknowledged = list(flooding.neighbour.acknowledged)
            row.good = len(acknowledged)
            logged = await asyncio.to_thread(site.logged, said_by(target.name))
            if logged[: row.good] != acknowledged or len(set(logged)) != len(logged):
                row.result = "acknowledged messages are not in the log once and in order"
    except BrokenError as broken:
        row.result, row.found = "BROKEN", keep(broken)
    finally:
        site.close()
    return row


async def _measure(
    target: Listener, seconds: float, gateway: Gateway, flooding: Beside, pool: ProcessPoolExecutor, row: Row
) -> None:
    throw = target.flood if target.stays_here else _apart(target, pool)
    inputs = target.inputs(seed=time.time_ns())
    await flooding.flood(
        [*kept(target.name), *itertools.islice(inputs, PART)], throw
    )  # all is warm, and has its memory
    rss_bytes, latencies_ms = gateway.rss_bytes, flooding.neighbour.latencies_ms
    latencies_ms.clear()
    await asyncio.sleep(seconds * IDLE_SHARE)
    row.idle_p50_ms, row.idle_p99_ms = quantile(latencies_ms, 0.5), quantile(latencies_ms, 0.99)
    latencies_ms.clear()
    ends_s = time.monotonic() + seconds * (1 - IDLE_SHARE)
    while time.monotonic() < ends_s:
        await flooding.flood(list(itertools.islice(inputs, PART)), throw)
        row.cases += PART
    row.fuzz_p50_ms, row.fuzz_p99_ms = quantile(latencies_ms, 0.5), quantile(latencies_ms, 0.99)
    row.grown_mb = round((gateway.rss_bytes - rss_bytes) / 1e6, 1)


def _apart(target: Listener, pool: ProcessPoolExecutor) -> Throw:
    async def throw(place: Place, inputs: Sequence[bytes]) -> None:
        await asyncio.get_running_loop().run_in_executor(pool, _throw, target.name, place, inputs)

    return throw


def _throw(name: str, place: Place, inputs: Sequence[bytes]) -> None:
    async def throw() -> None:
        await LISTENERS[name].flood(place, inputs)

    asyncio.run(throw())
