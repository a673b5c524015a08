"""Faults of the link between gateway and cloud, by the link proxy."""

from __future__ import annotations

import asyncio
from typing import Final

from firmware_sim.faults.fault import Direction, Fault, Kind
from tests.faults.bench import Bench, Rig
from tests.faults.row import Finding, row

FLAPS: Final = 200
AROUND_S: Final = 4.0
"""Devices send for so long before a fault and after it."""


async def _through(bench: Bench, fault: Fault, seconds: float, quick_s: float) -> Finding:
    """Devices send before, during and after the fault."""
    async with bench.rig() as rig:
        seconds = rig.seconds(seconds, quick_s)
        async with rig.sending(seconds + AROUND_S):
            await rig.break_link(fault, seconds)
        return await rig.prove(note=_figures(rig))


def _figures(rig: Rig) -> str:
    state = rig.proxy.state()
    return (
        f"proxy: {state.accepted} connections, {state.bytes_up:,} bytes up, {state.bytes_down:,} down,"
        f" {state.bytes_swallowed:,} swallowed"
    )


@row("link-refused", "link refused", "proxy resets every connection for 20 s")
async def refused(bench: Bench) -> Finding:
    return await _through(bench, Fault(Kind.CUT), 20.0, 5.0)


@row("link-black-hole", "link is a black hole", "proxy swallows both ways for 45 s")
async def black_hole(bench: Bench) -> Finding:
    return await _through(bench, Fault(Kind.BLACK_HOLE), 45.0, 10.0)


@row("link-answers-lost", "answers are lost, messages arrive", "proxy swallows the way down for 45 s")
async def answers_lost(bench: Bench) -> Finding:
    return await _through(bench, Fault(Kind.BLACK_HOLE, Direction.DOWN), 45.0, 10.0)


@row("link-messages-lost", "messages are lost, the cloud's words arrive", "proxy swallows the way up for 45 s")
async def messages_lost(bench: Bench) -> Finding:
    return await _through(bench, Fault(Kind.BLACK_HOLE, Direction.UP), 45.0, 10.0)


@row("link-hangs", "link hangs, and goes on", "proxy stalls both ways for 45 s")
async def hangs(bench: Bench) -> Finding:
    return await _through(bench, Fault(Kind.STALL), 45.0, 10.0)


@row("link-latency", "200 ms each way", "proxy delays every byte for 20 s")
async def latency(bench: Bench) -> Finding:
    return await _through(bench, Fault(Kind.DELAY, delay_ms=200), 20.0, 6.0)


@row("link-loss", "packets are lost", "proxy stalls or resets at random, every 2 s, for 30 s")
async def loss(bench: Bench) -> Finding:
    return await _through(bench, Fault(Kind.LOSS, every_s=2.0), 30.0, 8.0)


@row("link-64-kbit", "64 kbit/s, with a backlog of a minute", "proxy lets 8,000 bytes/s through each way", limit_s=240)
async def narrow(bench: Bench) -> Finding:
    async with bench.rig() as rig:
        backlog_s, narrow_s = rig.seconds(60.0, 10.0), rig.seconds(45.0, 10.0)
        async with rig.sending(backlog_s + narrow_s + AROUND_S):
            await rig.break_link(Fault(Kind.CUT), backlog_s)
            await rig.break_link(Fault(Kind.THROTTLE, bytes_per_s=8_000), narrow_s)
        return await rig.prove(note=_figures(rig))


@row("link-flaps", f"link flaps {FLAPS} times", "proxy cuts and mends it, every 0.4 s on average")
async def flaps(bench: Bench) -> Finding:
    async with bench.rig() as rig:
        wanted = FLAPS if not bench.quick else FLAPS // 10
        async with rig.sending(0.4 * wanted):
            rig.proxy.set_fault(Fault(Kind.FLAP, every_s=0.4))
            while (cuts := rig.proxy.state().cuts) < wanted:
                rig.say(f"flapped {cuts} times")
                await asyncio.sleep(0.1)
            rig.proxy.set_fault(Fault())
        return await rig.prove(note=f"{rig.proxy.state().cuts} cuts; {_figures(rig)}")
