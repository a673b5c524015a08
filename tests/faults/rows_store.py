"""Damage to the store: deleted, copied, restored from an older copy, and bits that flip."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Final

from firmware_sim.faults.fault import Fault, Kind
from sync.log.settings import SEGMENT_BYTES_MIN
from tests.end_to_end.site import Site
from tests.faults.bench import Bench
from tests.faults.row import Finding, row
from tests.faults.rows_disk import endpoint, publishing

FLIPS: Final = 12
SEND_S: Final = 8.0


@row("store-deleted-running", "store deleted under the running gateway", "rm -r of the log's folder")
async def deleted_running(bench: Bench) -> Finding:
    async with bench.rig() as rig:
        async with rig.sending(3 * SEND_S):
            await rig.break_link(Fault(Kind.CUT), SEND_S)
            shutil.rmtree(rig.log_dir)
            rig.say("the store is gone")
            await asyncio.sleep(SEND_S)
        await rig.drained()
        before = await rig.site.gateway_status()
        await rig.site.gateway.stop()
        await rig.site.start_gateway()
        async with rig.sending(SEND_S):
            pass
        pending = before["totals"]["pending"]
        return await rig.prove(
            note=f"damaged {before['totals']['damaged']:,}, pending {pending:,} when the gateway was stopped",
            may_lose=True,
            agree=False,
            unspoken=pending,
        )


@row("store-deleted-stopped", "store deleted while the gateway is stopped", "rm -r of the log's folder")
async def deleted_stopped(bench: Bench) -> Finding:
    async with bench.rig() as rig:
        async with rig.sending(SEND_S):
            rig.proxy.set_fault(Fault(Kind.CUT))
        pending = (await rig.site.gateway_status())["totals"]["pending"]
        await rig.site.gateway.stop()
        shutil.rmtree(rig.log_dir)
        await rig.site.start_gateway()
        rig.proxy.set_fault(Fault())
        async with rig.sending(SEND_S):
            pass
        return await rig.prove(
            note=f"{pending:,} acknowledged records went with the store",
            may_lose=True,
            agree=False,
            unspoken=pending,
        )


@row("store-restored", "an older copy of the store restored", "cp -r while stopped; put back after more was accepted")
async def restored(bench: Bench) -> Finding:
    async with bench.rig() as rig:
        copy = rig.site.folder / "copy"
        async with rig.sending(SEND_S):
            rig.proxy.set_fault(Fault(Kind.CUT))
        await rig.site.gateway.stop()
        _copy(rig.site.data_dir, copy)
        rig.proxy.set_fault(Fault())
        await rig.site.start_gateway()
        async with rig.sending(SEND_S):
            pass
        await rig.drained()
        await rig.site.gateway.stop()
        shutil.rmtree(rig.site.data_dir)
        shutil.copytree(copy, rig.site.data_dir)
        await rig.site.start_gateway()
        async with rig.sending(SEND_S):
            pass
        return await rig.prove(agree=False)


@row("store-twin", "a copy of the store run as a second gateway", "cp -r while stopped; both run, under one name")
async def twin(bench: Bench) -> Finding:
    async with bench.rig() as rig:
        async with rig.sending(SEND_S):
            rig.proxy.set_fault(Fault(Kind.CUT))
        await rig.site.gateway.stop()
        folder = rig.site.folder / "twin"
        folder.mkdir()
        other = Site(folder, rig.site.platform, project=rig.site.project, link_url=rig.link_url)
        _copy(rig.site.data_dir, other.data_dir)
        try:
            rig.proxy.set_fault(Fault())
            await rig.site.start_gateway()
            await other.start_gateway()
            rig.roster = [
                device | {"port": other.mqtt_ports[device["network"]]} if number % 2 else device
                for number, device in enumerate(rig.roster)
            ]
            async with rig.sending(2 * SEND_S):
                pass
            return await rig.prove(other, agree=False)
        finally:
            await other.gateway.kill()


@row("store-bits", "bits flip in sealed segments and in the newest", f"{FLIPS} bits, while the gateway is stopped")
async def bits(bench: Bench) -> Finding:
    async with bench.rig(log={"segment_bytes": SEGMENT_BYTES_MIN}) as rig:
        async with publishing(rig, batch_records=20) as publisher:
            rig.proxy.set_fault(Fault(Kind.CUT))
            rig.say("the log fills")
            await publisher.publish(endpoint(rig), 10_000, give_up=False)
            await rig.site.gateway.stop()
            flipped = _flip(rig.log_dir, rig.chance)
            await rig.site.start_gateway()
            rig.proxy.set_fault(Fault())
            await publisher.publish(endpoint(rig), 1_000, give_up=False)
        return await rig.prove(note=f"bits flipped in {flipped}", may_lose=True, exact=True)


def _copy(store: Path, copy: Path) -> None:
    """All but the bus's socket."""
    shutil.copytree(store, copy, ignore=shutil.ignore_patterns("*.sock"))


def _flip(log: Path, chance: random.Random) -> str:
    """Half of them in the newest segment with anything in it, the others in sealed ones. Where, in words."""
    segments = [path for path in sorted(log.glob("*.seg")) if path.read_bytes()[:4] != bytes(4)]
    flips = [(segments[-1], FLIPS // 2)] + [(chance.choice(segments[:-1]), 1) for _ in range(FLIPS - FLIPS // 2)]
    for path, count in flips:
        data = bytearray(path.read_bytes())
        used = len(data.rstrip(b"\0"))
        for _ in range(count):
            at = chance.randrange(used)
            data[at] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
    counts = Counter({path.name: 0 for path, _ in flips})
    for path, count in flips:
        counts[path.name] += count
    return ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))
