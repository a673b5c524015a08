"""Start with a log of several gigabytes that a kill left behind, nothing of it in the system's cache where root can see
to that. The baseline reads as many bytes as the log's last file has: what a start cannot do without.

    .venv/bin/python -m benchmarks.big_log GIGABYTES
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import uvloop

from benchmarks.row import Row
from protocols.batch import BatchKey, RecordBatch, encode_records
from protocols.messages import Clock, ClockState, Origin, Priority
from sync.log.log import Entry, Log, LogSettings, RealDisk

GIGABYTES: Final = 3.0
GOAL_S: Final = 3.0
NOW_MS: Final = 1_700_000_000_000
ROWS: Final = 8
PAYLOAD_BYTES: Final = 100_000
"""Large ones that do not compress: what counts here is the size of the log, not how many messages fill it."""
SETTINGS: Final = LogSettings(max_bytes=20_000_000_000)
_DROP_CACHES: Final = Path("/proc/sys/vm/drop_caches")


def rows(scale: float) -> list[Row]:
    """`scale`: 1 is a log of GIGABYTES."""
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as name:
        subprocess.run([sys.executable, "-m", "benchmarks.big_log", str(GIGABYTES * scale), name], check=True)
        sizes = {path: path.stat().st_size for path in Path(name).glob("*.seg")}
        cold = _drop_caches()
        seconds = uvloop.run(_open(Path(name)))
        _drop_caches()
        bare = _read(max(path for path in sizes if path.exists()))
    return [
        Row(
            f"start with a log of {sum(sizes.values()) / 1e9:.1f} GB after a kill",
            seconds,
            "s",
            goal=GOAL_S,
            at_most=True,
            baseline="reading its last file",
            baseline_measured=bare,
            note=f"{len(sizes)} files, {'nothing' if cold else 'all of it'} cached",
        )
    ]


async def _open(directory: Path) -> float:
    started = time.perf_counter()
    log = await _log(directory)
    seconds = time.perf_counter() - started
    await log.close()
    return seconds


async def _log(directory: Path) -> Log:
    return await Log.open(
        directory, SETTINGS, disk=RealDisk(), wall_ms=lambda: NOW_MS, new_epoch=lambda: secrets.randbits(63)
    )


async def _fill(directory: Path, bytes_wanted: float) -> None:
    noise = random.Random(71).randbytes
    origin = Origin("bench", "serial", "pump", "up", "", "mqtt")
    log = await _log(directory)
    counters = itertools.count()
    size = ROWS * PAYLOAD_BYTES

    def entry(counter: int) -> Entry:
        payloads = [noise(PAYLOAD_BYTES) for _ in range(ROWS)]
        key = BatchKey(1, counter)
        batch = RecordBatch(key, Clock(1, 0, ClockState.UNSET), NOW_MS, [origin], [0] * ROWS, [0] * ROWS, payloads)
        return Entry(encode_records(batch), key, ROWS, NOW_MS, Priority.TELEMETRY)

    async def append() -> None:
        while (counter := next(counters)) * size < bytes_wanted:
            await log.append([entry(counter)])

    await asyncio.gather(*(append() for _ in range(4)))
    os._exit(0)  # nothing is closed, as a kill would have it


def _drop_caches() -> bool:
    os.sync()
    with contextlib.suppress(OSError):
        _DROP_CACHES.write_text("1\n")
        return True
    return False


def _read(path: Path) -> float:
    started = time.perf_counter()
    path.read_bytes()
    return time.perf_counter() - started


if __name__ == "__main__":
    asyncio.run(_fill(Path(sys.argv[2]), float(sys.argv[1]) * 1e9))
