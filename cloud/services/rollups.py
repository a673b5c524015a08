"""Sums up the days of history that have ended, and those again that changed later (cloud/db/rollups.py)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

from cloud.db import curator, rollups
from cloud.db.curator import Partition
from cloud.db.database import Connection
from cloud.model.retention import DAY_MS

GRACE_MS: Final = 3_600_000
"""So long after its end a day is summed up: a writer to whom it was still today when it wrote, and which thus did not
say that it changed it, has committed by then, also where its clock is behind."""
TURN_S: Final = 10.0
"""Then others have theirs: whoever asks for a run of the curator waits for no longer."""
DAYS_MAX: Final = 50
"""Days of devices that one transaction sums up: 72,000 messages, where there is one a minute."""
DEVICES_MAX: Final = 500
DEVICE_FIRST: Final = -(2**62)

Pause: TypeAlias = Callable[[float], Awaitable[None]]
"""After so many seconds of work, for the sake of others."""


async def turn(conn: Connection, now_ms: int, pause: Pause) -> bool:
    """Works for up to TURN_S, on the curator's session; whether there is more to do."""
    end_day = (now_ms - GRACE_MS) // DAY_MS
    until_s = time.monotonic() + TURN_S
    while days := await rollups.late(conn, end_day, DAYS_MAX):
        await _make(conn, days, pause)
        if time.monotonic() > until_s:
            return True
    done = await rollups.done(conn)
    for partition in await curator.partitions(conn):
        if partition.from_ms is None or partition.until_ms is None:
            continue  # what has no week of its own came late: it says so
        first, last = partition.from_ms // DAY_MS, min(partition.until_ms // DAY_MS, end_day)
        since = done.get(first, first)
        if since < last:
            if not await _week(conn, partition, since, last, until_s, pause):
                return True
            await rollups.end_week(conn, first, last)
    return False


async def _week(conn: Connection, partition: Partition, since: int, last: int, until_s: float, pause: Pause) -> bool:
    """Days [since, last) of all devices of a week that are not summed up; whether it came to the end of them."""
    after = DEVICE_FIRST
    while found := await curator.devices(conn, partition.name, after, DEVICES_MAX):
        ids = [device_id for device_id, _ in found]
        after = ids[-1]
        days = await rollups.unfit(conn, ids, since, last)
        for start in range(0, len(days), DAYS_MAX):
            await _make(conn, days[start : start + DAYS_MAX], pause)
            if time.monotonic() > until_s:
                return False
    return True


async def keep(conn: Connection, ids: Sequence[int], first: int, end: int, pause: Pause) -> None:
    """Days [first, end) of these devices stay as they are now, though their rows are about to go."""
    days = await rollups.unfit(conn, ids, first, end)
    for start in range(0, len(days), DAYS_MAX):
        await _make(conn, days[start : start + DAYS_MAX], pause)
    await curator.patiently(lambda: rollups.keep(conn, ids, first, end), lambda: None)


async def _make(conn: Connection, days: Sequence[tuple[int, int]], pause: Pause) -> None:
    started = asyncio.get_running_loop().time()

    async def make() -> None:
        async with conn.transaction(isolation="repeatable_read"):
            await rollups.make(conn, days)

    await curator.patiently(make, lambda: None)
    await pause(asyncio.get_running_loop().time() - started)
