"""Faults in the system calls of a running process, by strace: a kill, an error or a delay instead of the call."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from tests.end_to_end.site import Process

ATTACH_S = 10.0
LOOK_S = 0.005


class Tampering:
    """One strace on one process, until its end or `end`."""

    def __init__(self, strace: Process, pid: int) -> None:
        self._strace = strace
        self._pid = pid

    async def attached(self) -> bool:
        """Once every thread of the process is traced; False if it ends before."""
        async with asyncio.timeout(ATTACH_S):
            while self._strace.returncode is None:
                if _is_traced(self._pid):
                    return True
                await asyncio.sleep(LOOK_S)
        return False

    async def end(self) -> None:
        """The process goes on as it would without."""
        await self._strace.stop()


@contextlib.asynccontextmanager
async def tampering(pid: int, calls: str, what: str, *, paths: Sequence[Path] = ()) -> AsyncIterator[Tampering]:
    """`calls`: names with commas; `what`: what strace's inject= takes behind them, such as `signal=KILL:when=7`;
    `paths`: only calls that name one of these files, or a descriptor of one."""
    only = [word for path in paths for word in ("-P", str(path))]
    words = ("-f", "-qq", "-o", "/dev/null", *only, "-e", f"trace={calls}", "-e", f"inject={calls}:{what}")
    strace = Process("strace", ["strace", *words, "-p", str(pid)], Path(os.devnull))
    await strace.start()
    running = Tampering(strace, pid)
    try:
        yield running
    finally:
        await running.end()


def _is_traced(pid: int) -> bool:
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        return all("TracerPid:\t0\n" not in (thread / "status").read_text() for thread in threads)
    except FileNotFoundError:
        return False
