"""A disk that fails, is slow, hangs, is full or becomes read-only under the running gateway."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

from edge.config import LOG_BYTES_MIN
from firmware_sim.faults.fault import Fault, Kind
from sync.log.settings import SEGMENT_BYTES_MIN
from tests.faults.bench import Bench, Rig
from tests.faults.mounts import MIB, Mount, in_file, in_memory
from tests.faults.publisher import Publisher
from tests.faults.row import Finding, row
from tests.faults.strace import tampering

WRITES: Final = "pwritev,pwritev2,pwrite64,fsync,fdatasync,fallocate"
SMALLEST: Final = {"max_bytes": LOG_BYTES_MIN, "segment_bytes": SEGMENT_BYTES_MIN}
"""The smallest log that there can be: five times as much makes it full."""
PAYLOAD_BYTES: Final = 2_000
"""Large and incompressible, so that a log is full after some ten thousand messages."""
DISK_BYTES: Final = 48 * MIB


async def _failing(bench: Bench, error: str) -> Finding:
    """First every write fails, then every third; devices wait, and send again."""
    async with bench.rig() as rig:
        part_s = rig.seconds(10.0, 4.0)
        troubled = []
        async with rig.sending(2 * part_s + 8.0):
            for which, when in (("every write fails", "1+"), ("every third write fails", "3+3")):
                async with tampering(rig.site.gateway.pid, WRITES, f"error={error}:when={when}") as strace:
                    await strace.attached()
                    rig.say(f"{which}: {error}")
                    troubled.append(await rig.until_status(lambda status: status["log"]["trouble"] != ""))
                    await asyncio.sleep(part_s)
        return await rig.prove(note=f"strace --inject=…:error={error}; it said: {troubled[0]['log']['trouble']}")


@row("disk-eio", "writes and syncs fail", "strace --inject=…:error=EIO", needs=("root", "strace"))
async def eio(bench: Bench) -> Finding:
    return await _failing(bench, "EIO")


@row("disk-enospc", "writes find no room", "strace --inject=…:error=ENOSPC", needs=("root", "strace"))
async def enospc(bench: Bench) -> Finding:
    return await _failing(bench, "ENOSPC")


@row("disk-slow", "each write takes 0.3 s", "strace --inject=…:delay_enter, for 20 s", needs=("root", "strace"))
async def slow(bench: Bench) -> Finding:
    async with bench.rig() as rig:
        seconds = rig.seconds(20.0, 5.0)
        async with (
            rig.sending(seconds + 8.0),
            tampering(rig.site.gateway.pid, WRITES, "delay_enter=300000") as strace,
        ):
            await strace.attached()
            rig.say("each write takes 0.3 s")
            await asyncio.sleep(seconds)
        return await rig.prove()


@contextlib.asynccontextmanager
async def _on_a_disk(bench: Bench, name: str) -> AsyncIterator[tuple[Rig, Mount]]:
    """A gateway whose data are on a disk of its own."""
    async with (
        in_file(bench.place(name), 4 * DISK_BYTES) as mount,
        bench.rig(data_dir=mount.where / "gateway") as rig,
    ):
        yield rig, mount


@row("disk-hangs", "disk hangs for 15 s", "fsfreeze of a loop-mounted ext4", needs=("root", "fsfreeze", "mkfs.ext4"))
async def hangs(bench: Bench) -> Finding:
    async with _on_a_disk(bench, "hangs") as (rig, mount):
        seconds = rig.seconds(15.0, 5.0)
        async with rig.sending(seconds + 8.0):
            rig.say("the disk hangs")
            await mount.freeze()
            try:
                await asyncio.sleep(seconds)
            finally:
                await mount.thaw()
        return await rig.prove()


@row(
    "disk-read-only",
    "disk becomes read-only, and is mounted again",
    "mount -o remount,abort of a loop-mounted ext4",
    needs=("root", "mkfs.ext4"),
)
async def read_only(bench: Bench) -> Finding:
    async with _on_a_disk(bench, "read-only") as (rig, mount):
        async with rig.sending(24.0):
            await mount.break_off()
            rig.say("the disk is read-only")
            await asyncio.sleep(8.0)
            refused = await rig.status()
            await rig.site.gateway.kill()
            await mount.mount_again()
            await rig.site.start_gateway()
        trouble = bool(refused and refused["log"]["trouble"])
        return await rig.prove(more={"the gateway did not say what was wrong": trouble})


@contextlib.asynccontextmanager
async def publishing(rig: Rig, *, batch_records: int = 500, alarms: str = "") -> AsyncIterator[Publisher]:
    """Large messages through the bus, received from now on."""
    publisher = Publisher(
        rig.roster,
        rig.site.folder / "ledger",
        payload_bytes=PAYLOAD_BYTES,
        batch_records=batch_records,
        first_ms=time.time_ns() // 1_000_000,
        step_ms=0.2,
        chance=rig.chance,
        alarms=alarms,
    )
    try:
        yield publisher
    finally:
        publisher.close()


def endpoint(rig: Rig) -> str:
    return f"ipc://{rig.site.data_dir / 'bus.sock'}"


async def _filled(bench: Bench, mount: Mount, how: str) -> Finding:
    """Somebody else takes all the room, while the link is cut and devices go on; then it is free again."""
    async with bench.rig(data_dir=mount.where / "gateway", log=SMALLEST) as rig:
        async with publishing(rig) as publisher:
            rig.proxy.set_fault(Fault(Kind.CUT))
            filling = await mount.fill()
            rig.say("the disk is full")
            await publisher.publish(endpoint(rig), 10_000, give_up=True)
            full = await rig.site.gateway_status()
            filling.unlink()
            rig.proxy.set_fault(Fault())
            await publisher.publish(endpoint(rig), 2_000, give_up=False)
            note = f"{how}; {publisher.refused:,} of {publisher.made:,} refused; {_fates(full)}"
        return await rig.prove(note=note, may_lose=True, exact=True)


def _fates(status: dict[str, Any]) -> str:
    totals, log = status["totals"], status["log"]
    return f"full: logged {totals['logged']:,}, evicted {totals['evicted']:,}, {log['used_bytes']:,} bytes used"


@row("full-tmpfs", "tmpfs full by another file", "a file that takes all its room", needs=("root",))
async def full_tmpfs(bench: Bench) -> Finding:
    async with in_memory(bench.place("tmpfs"), DISK_BYTES) as mount:
        return await _filled(bench, mount, "tmpfs of 48 MiB")


@row("full-ext4", "loop-mounted ext4 full by another file", "dd until ENOSPC", needs=("root", "mkfs.ext4"))
async def full_ext4(bench: Bench) -> Finding:
    async with in_file(bench.place("ext4"), DISK_BYTES) as mount:
        return await _filled(bench, mount, "ext4 of 48 MiB")


async def _overfilled(bench: Bench, data_dir: Path | None, log: dict[str, Any], messages: int, how: str) -> Finding:
    """The log itself takes all the room there is for it, link cut; then the rest drains."""
    async with bench.rig(data_dir=data_dir, log=log) as rig:
        alarms = rig.roster[0]["name"]
        async with publishing(rig, alarms=alarms) as publisher:
            rig.proxy.set_fault(Fault(Kind.CUT))
            rig.say("the log fills")
            await publisher.publish(endpoint(rig), messages, give_up=True)
            full = await rig.site.gateway_status()
            rig.proxy.set_fault(Fault())
            await publisher.publish(endpoint(rig), 2_000, give_up=False)
            note = f"{how}; {publisher.refused:,} of {publisher.made:,} refused; {_fates(full)}"
        return await rig.prove(note=note, may_lose=True, exact=True, spared=alarms)


@row(
    "full-by-log-ext4", "loop-mounted ext4 full by the log", "backlog larger than the disk", needs=("root", "mkfs.ext4")
)
async def overfilled_ext4(bench: Bench) -> Finding:
    async with in_file(bench.place("small"), DISK_BYTES) as mount:
        log = {"segment_bytes": SEGMENT_BYTES_MIN}
        return await _overfilled(bench, mount.where / "gateway", log, 40_000, "ext4 of 48 MiB")


@row("full-by-log-tmpfs", "tmpfs full by the log", "backlog larger than the file system", needs=("root",))
async def overfilled_tmpfs(bench: Bench) -> Finding:
    async with in_memory(bench.place("tiny"), DISK_BYTES) as mount:
        log = {"segment_bytes": SEGMENT_BYTES_MIN}
        return await _overfilled(bench, mount.where / "gateway", log, 40_000, "tmpfs of 48 MiB")


@row("full-cap", "log at its cap, with the oldest evicted", "backlog larger than log.max_bytes")
async def capped(bench: Bench) -> Finding:
    return await _overfilled(bench, None, SMALLEST, 20_000, "the smallest cap")


@row("full-refuses", "log at its cap, nothing evicted", "the same, with log.evict = false")
async def refusing(bench: Bench) -> Finding:
    return await _overfilled(bench, None, {**SMALLEST, "evict": False}, 20_000, "the smallest cap")
