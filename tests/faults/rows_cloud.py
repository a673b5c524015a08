"""Faults of the cloud: killed and stopped in the midst of its work, its engines killed, and a front that refuses."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

from firmware_sim.faults.fault import Fault, Kind
from firmware_sim.faults.front import Front, Refusal
from tests.end_to_end.engines import kill_engine
from tests.faults.bench import Bench, Rig
from tests.faults.row import Finding, row
from tests.faults.strace import tampering

KILLS: Final = 12
QUICK_KILLS: Final = 3
ENGINE_KILLS: Final = 4
PATIENCE_S: Final = 3.0
CALLS: Final = {"write,writev": 300, "sendto,sendmsg,send": 300, "epoll_wait,epoll_pwait": 400, "futex": 300}
"""What the cloud does all the time: a kill at one of these is a kill between any two steps of a transaction."""


async def _killed(bench: Bench, kill: Callable[[Rig], Awaitable[str]], wanted: int) -> Finding:
    async with bench.rig() as rig:
        kills: Counter[str] = Counter()
        async with rig.sending():
            while kills.total() < wanted:
                await asyncio.sleep(rig.chance.uniform(0.2, 2.0))
                kills[await kill(rig)] += 1
                rig.say(f"killed {kills.total()} times")
                if rig.site.cloud.returncode is not None:
                    await rig.site.start_cloud()
            await rig.until_status(lambda status: status["link"]["state"] == "up")
        named = ", ".join(f"{count} {name.split(',')[0]}" for name, count in kills.most_common())
        return await rig.prove(note=f"{kills.total()} kills: {named}")


async def _at_any_moment(rig: Rig) -> str:
    await rig.site.cloud.kill()
    return "SIGKILL"


async def _at_a_call(rig: Rig) -> str:
    calls = rig.chance.choice(list(CALLS))
    when = int(CALLS[calls] ** rig.chance.random())
    async with tampering(rig.site.cloud.pid, calls, f"signal=KILL:when={when}"):
        try:
            async with asyncio.timeout(PATIENCE_S):
                await rig.site.cloud.wait()
        except TimeoutError:
            await rig.site.cloud.kill()
            return "plain"
    return calls


def _engine(program: str) -> Callable[[Rig], Awaitable[str]]:
    async def kill(rig: Rig) -> str:
        kill_engine(rig.site.platform.folder, program)
        await rig.site.until(rig.site.platform.is_ready_or_gone)
        if rig.site.cloud.returncode is not None:
            await rig.site.start_cloud()
        await rig.until_more_is_stored()
        return program

    return kill


@row("cloud-killed", "cloud killed at random moments", f"SIGKILL, {KILLS} times", limit_s=300)
async def killed(bench: Bench) -> Finding:
    return await _killed(bench, _at_any_moment, QUICK_KILLS if bench.quick else KILLS)


@row(
    "cloud-killed-in-calls",
    "cloud killed in the midst of a transaction",
    f"strace --inject=…:signal=KILL:when=N, {KILLS} times",
    limit_s=300,
    needs=("root", "strace"),
)
async def killed_in_calls(bench: Bench) -> Finding:
    return await _killed(bench, _at_a_call, QUICK_KILLS if bench.quick else KILLS)


@row("cloud-postgres-killed", "PostgreSQL killed", f"SIGKILL, {ENGINE_KILLS} times", limit_s=300)
async def postgres_killed(bench: Bench) -> Finding:
    return await _killed(bench, _engine("postgres"), 1 if bench.quick else ENGINE_KILLS)


@row("cloud-nats-killed", "NATS killed", f"SIGKILL, {ENGINE_KILLS} times", limit_s=300)
async def nats_killed(bench: Bench) -> Finding:
    return await _killed(bench, _engine("nats-server"), 1 if bench.quick else ENGINE_KILLS)


@row("cloud-stopped", "cloud stands still for a minute", "SIGSTOP, 60 s, SIGCONT", limit_s=240)
async def stopped(bench: Bench) -> Finding:
    async with bench.rig() as rig:
        seconds = rig.seconds(60.0, 8.0)
        async with rig.sending(seconds + 8.0):
            rig.say("cloud stands still")
            rig.site.cloud.signal(signal.SIGSTOP)
            try:
                await asyncio.sleep(seconds)
            finally:
                rig.site.cloud.signal(signal.SIGCONT)
        return await rig.prove()


async def _refused(bench: Bench, refusal: Refusal, seconds: float) -> Finding:
    """An HTTP front takes the cloud's place for a while."""
    async with bench.rig() as rig:
        front = Front(refusal)
        cloud = rig.proxy.target
        port = await front.start()
        try:
            async with rig.sending(seconds + 8.0):
                rig.proxy.target = ("127.0.0.1", port)
                rig.proxy.set_fault(Fault(Kind.CUT))
                rig.proxy.set_fault(Fault())
                rig.say(f"a front answers {refusal.status or 'nothing'}")
                await asyncio.sleep(seconds)
                rig.proxy.target = cloud
                rig.proxy.set_fault(Fault(Kind.CUT))
                rig.proxy.set_fault(Fault())
            note = f"{front.requests} requests refused in {seconds:g} s"
            return await rig.prove(note=note, more={"the gateway came to the front": front.requests > 0})
        finally:
            await front.close()


@row("cloud-500", "cloud answers 500", "an HTTP front before the link, for 20 s")
async def answers_500(bench: Bench) -> Finding:
    return await _refused(bench, Refusal(500), 5.0 if bench.quick else 20.0)


@row("cloud-429", "cloud answers 429, Retry-After: 5", "an HTTP front before the link, for 20 s")
async def answers_429(bench: Bench) -> Finding:
    return await _refused(bench, Refusal(429, 5), 5.0 if bench.quick else 20.0)


@row("cloud-silent", "cloud takes connections and answers nothing", "an HTTP front before the link, for 40 s")
async def answers_nothing(bench: Bench) -> Finding:
    return await _refused(bench, Refusal(None), 5.0 if bench.quick else 40.0)
