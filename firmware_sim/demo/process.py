"""A process of the demo: started, watched, and ended; what it says goes to a log file."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from tidegate.console import UserError

TAIL_LINES: Final = 15
TAIL_BYTES: Final = 16 * 1024
"""Read from the end of a log for its last lines."""
LOG_BYTES_MAX: Final = 16 * 1024 * 1024
"""Then, at the next start, the log makes room for a new one; one old one is kept."""
LOOK_S: Final = 0.1
STOP_S: Final = 20.0
"""How long a process may take to end in order: PostgreSQL writes a checkpoint."""
STALE_S: Final = 30.0
"""How long what an earlier demo left behind may take to end."""


class StartError(UserError):
    """A process ended, or was not ready in time; `tail` is what it said last."""

    def __init__(self, name: str, message: str, log: Path, tail: list[str]) -> None:
        super().__init__(message, f"its log: {log}")
        self.name = name
        self.log = log
        self.tail = tail


class DemoProcess:
    """One program, in a process group of its own: Ctrl-C reaches the demo alone, which ends its parts in order."""

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        self.name = name
        self.log = log
        self._command = list(command)
        self._process: asyncio.subprocess.Process | None = None
        self._log_start = 0

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Raises StartError if the program cannot be run."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            if self.log.stat().st_size > LOG_BYTES_MAX:
                self.log.replace(self.log.with_suffix(".old.log"))
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    env={**os.environ, "PYTHONUNBUFFERED": "1"},
                )
            except OSError as error:
                raise StartError(self.name, f"{self._command[0]}: {error.strerror}", self.log, []) from None

    async def until_ready(self, probe: Callable[[], Awaitable[bool]], within_s: float) -> None:
        """Asks `probe` until it says yes. Raises StartError if the process ends before, or takes longer."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + within_s
        while not await probe():
            if not self.is_running:
                raise self.ended()
            if loop.time() > end_s:
                message = f"the {self.name} is not ready after {within_s:.0f} s"
                raise StartError(self.name, message, self.log, self.last_lines())
            await asyncio.sleep(LOOK_S)

    async def wait(self) -> int:
        """The exit code; -9 for SIGKILL."""
        assert self._process is not None
        return await self._process.wait()

    def ended(self) -> StartError:
        """The error of a process that is not to have ended."""
        assert self._process is not None
        how = how_it_ended(self._process.returncode)
        return StartError(self.name, f"the {self.name} {how}", self.log, self.last_lines())

    async def stop(self) -> tuple[bool, str]:
        """Asks it to end, and makes it end when it takes too long; whether it ended well, and how in words."""
        if self._process is None or not self.is_running:
            return False, "had ended before"
        self._process.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                code = await self._process.wait()
        except TimeoutError:
            self.kill()
            await self._process.wait()
            return False, f"killed: it had not ended within {STOP_S:.0f} s"
        # One that is still starting has no handler yet and ends by the signal itself, which is what it was asked to do.
        ended_well = code in (0, -signal.SIGTERM)
        return ended_well, "stopped" if ended_well else how_it_ended(code)

    def kill(self) -> None:
        if self._process is not None and self.is_running:
            self._process.kill()

    def lines(self) -> list[str]:
        """What it said since it was started, as far as that is in the log's end."""
        return _tail(self.log, self._log_start)

    def last_lines(self) -> list[str]:
        return self.lines()[-TAIL_LINES:]


def how_it_ended(code: int | None) -> str:
    if code is not None and code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


async def end_stale(pids: dict[str, int], mark: str) -> list[str]:
    """Ends what a demo that was killed left behind: those processes of `pids` whose command line holds `mark`. Returns
    their names. The system may have given a number to somebody else's process since."""
    stale = {name: pid for name, pid in pids.items() if pid != os.getpid() and mark in command_line(pid)}
    for pid in stale.values():
        _signal(pid, signal.SIGTERM)
    loop = asyncio.get_running_loop()
    end_s = loop.time() + STALE_S
    while any(mark in command_line(pid) for pid in stale.values()):
        if loop.time() > end_s:
            for pid in stale.values():
                _signal(pid, signal.SIGKILL)
        await asyncio.sleep(LOOK_S)
    return list(stale)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def command_line(pid: int) -> str:
    """Empty where there is no such process, or one that has ended already."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        found = subprocess.run(["ps", "-p", str(pid), "-o", "command="], capture_output=True, text=True, check=False)
        return found.stdout.strip()


def _tail(path: Path, start: int) -> list[str]:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(start, size - TAIL_BYTES))
            return file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return []
