"""A gateway whose clock is wrong: libfaketime gives its process another wall clock, and leaves the boot clock alone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from tests.faults.bench import Bench, Rig
from tests.faults.row import Finding, row

LIBRARY: Final = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), Path())
PART_S: Final = 6.0
DAY: Final = 86_400


async def _by(bench: Bench, clocks: list[str], *, restarts: bool = False, note: str = "") -> Finding:
    """Devices send while the gateway's clock shows one after the other; each as FAKETIME takes it."""
    async with bench.rig() as rig:
        file = rig.site.folder / "faketime"
        file.write_text(clocks[0] + "\n")
        rig.site.gateway.environment = {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        await rig.site.gateway.stop()
        await rig.site.start_gateway()
        async with rig.sending((PART_S + 1.0) * len(clocks) + 2.0):
            for clock in clocks:
                file.write_text(clock + "\n")
                rig.say(f"the gateway's clock: {clock}")
                await asyncio.sleep(PART_S)
        await _right_again(rig)
        return await rig.prove(note=note, margin="1000000h")


async def _right_again(rig: Rig) -> None:
    rig.site.gateway.environment = {}
    await rig.site.gateway.stop()
    await rig.site.start_gateway()


@row("clock-1970", "gateway boots in 1970", "libfaketime: @1970-01-01 00:01:00", needs=("faketime",))
async def unset(bench: Bench) -> Finding:
    return await _by(bench, ["@1970-01-01 00:01:00"])


@row("clock-steps", "gateway's clock steps a day back and forth", "libfaketime: -1d, +1d, …", needs=("faketime",))
async def steps(bench: Bench) -> Finding:
    clocks = ["+0", f"-{DAY}", "+0", f"+{DAY}", f"-{DAY}", "+0"]
    return await _by(bench, clocks[:3] if bench.quick else clocks)


@row("clock-drifts", "gateway's clock runs at half and at double speed", "libfaketime: x0.5, x2", needs=("faketime",))
async def drifts(bench: Bench) -> Finding:
    return await _by(bench, ["+0 x0.5", "+0 x2"])
