"""Faults of the gateway's process: killed at any system call, stopped, and the system calls that fail or take long."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from pathlib import Path
from typing import Final

from tests.faults.bench import Bench, Rig
from tests.faults.row import Finding, row
from tests.faults.strace import tampering

KILLS: Final = 60
QUICK_KILLS: Final = 6
CALLS: Final = {
    "pwritev,pwritev2": (8, 60),
    "write,writev,sendto,sendmsg": (1_000, 800),
    "openat": (8, 0),
    "fsync,fdatasync": (5, 0),
    "fallocate": (2, 0),
    "ftruncate,truncate": (2, 0),
    "unlink,unlinkat": (2, 0),
    "pwrite64": (2, 0),
}
"""What the gateway does, and about how many of them a thread does in a start, and in some seconds of 200 messages a
second; 0: hardly any. The kill comes at one of them. Everything but the second is of the store."""
SOCKETS: Final = "write,writev,sendto,sendmsg"
PLAIN: Final = "by SIGKILL alone"
PATIENCE_S: Final = 3.0
"""How long a call is waited for; then the gateway is killed without it, and another one is tried."""
WRITES: Final = "pwritev,pwritev2,pwrite64,fsync,fdatasync"


@row(
    "gateway-killed",
    "gateway killed at random system calls",
    f"strace --inject=…:signal=KILL:when=N, {KILLS} times, while it starts and while it runs",
    limit_s=480,
    needs=("root", "strace"),
)
async def killed(bench: Bench) -> Finding:
    async with bench.rig() as rig:
        wanted = QUICK_KILLS if bench.quick else KILLS
        kills: Counter[str] = Counter()
        async with rig.sending():
            while (done := kills.total() - kills[PLAIN]) < wanted and kills[PLAIN] < wanted:
                rig.say(f"killed {done} of {wanted} times")
                kills[await _kill_once(rig)] += 1
            await rig.site.start_gateway()
        named = ", ".join(f"{count} {name.split(',')[0]}" for name, count in kills.most_common())
        return await rig.prove(
            note=f"{kills.total()} kills: {named}", more={f"{wanted} kills": kills.total() >= wanted}
        )


async def _kill_once(rig: Rig) -> str:
    """Has the gateway killed, in its start or later. The calls at one of which it died."""
    gateway = rig.site.gateway
    calls = rig.chance.choice(list(CALLS))
    in_start, running = CALLS[calls]
    starting = not running or rig.chance.random() < 0.5
    if gateway.returncode is None and starting:
        await gateway.kill()
    if gateway.returncode is not None:
        await (gateway.start() if starting else rig.site.start_gateway())
    when = rig.chance.randint(1, in_start if starting else running)
    # Of files only the store's: a start opens a thousand others first.
    paths = () if calls == SOCKETS else _store(rig)
    async with tampering(gateway.pid, calls, f"signal=KILL:when={when}", paths=paths):
        try:
            async with asyncio.timeout(PATIENCE_S):
                await gateway.wait()
        except TimeoutError:
            await gateway.kill()
            return PLAIN
    return calls


def _store(rig: Rig) -> list[Path]:
    """The files that it writes, or may come to write."""
    folder, log = rig.site.data_dir, rig.log_dir
    segments = sorted(int(path.stem) for path in log.glob("*.seg")) or [0]
    named = [log / f"{ordinal:08}.seg" for ordinal in range(segments[0], segments[-1] + 8)]
    files = ("gateway.lock", "replica.db", "replica.db-wal", "replica.db-journal")
    return [
        folder,
        log,
        *(log / name for name in ("lock", "state.0", "state.1")),
        *(folder / name for name in files),
        *named,
    ]


@row("gateway-stopped", "gateway stands still for a minute", "SIGSTOP, 60 s, SIGCONT", limit_s=240)
async def stopped(bench: Bench) -> Finding:
    async with bench.rig() as rig:
        seconds = rig.seconds(60.0, 8.0)
        async with rig.sending(seconds + 8.0):
            rig.say("gateway stands still")
            rig.site.gateway.signal(signal.SIGSTOP)
            try:
                await asyncio.sleep(seconds)
            finally:
                rig.site.gateway.signal(signal.SIGCONT)
        return await rig.prove()
