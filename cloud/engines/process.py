"""A running engine as the kernel knows it: found by its directory, held by a descriptor.

A process id alone may be recycled between a look and a signal. So a process is known by three things that nobody else
can have: it is an engine's program, its working directory is this engine's data directory (same device and inode,
whatever path leads there, in whichever mount namespace), and it is held by a pidfd taken before that was looked at. No
file says which process to trust: what runs on a directory is found even if whoever started it was killed before it
could write anything down.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from cloud.engines import drop

SHELL_SIGNALLED: Final = 128
"""Exit codes of processes ended by a signal are shown as shells do: 128 and the signal's number."""


class EngineProcess:
    """One process, ours or adopted, that can be waited for and signalled without mistaking it. Needs a running loop.

    `close` lets go of it: it goes on running.
    """

    def __init__(self, pid: int, descriptor: int) -> None:
        self.pid = pid
        self.exit_code: int | None = None
        """None while it runs, and for one that is not our child, whose exit code nobody tells us."""
        self._descriptor = descriptor
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(descriptor, self._on_end)

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    async def wait(self, timeout_s: float | None = None) -> bool:
        """True once it has ended, False after `timeout_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._ended.wait()
        return self.ended

    def send(self, number: signal.Signals) -> None:
        if not self.ended:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, number)

    def close(self) -> None:
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _on_end(self) -> None:
        with contextlib.suppress(ChildProcessError):
            _, status = os.waitpid(self.pid, os.WNOHANG)
            code = os.waitstatus_to_exitcode(status)
            self.exit_code = code if code >= 0 else SHELL_SIGNALLED - code
        self.close()
        self._ended.set()


def spawn(argv: Sequence[str], environment: Mapping[str, str], log: Path, lock: int) -> EngineProcess:
    """Starts argv with its output at the end of `log`; it outlives us if we are killed.

    The launcher holds `lock`, the owner's, until it has become the engine: so whoever takes over finds either the lock
    taken or the engine in its directory, never a second one on its way.

    Not by asyncio, whose subprocesses are killed when their loop is closed: another Tidegate process may go on with
    this one.
    """
    output = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), output, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
        (os.POSIX_SPAWN_DUP2, lock, drop.LOCK_DESCRIPTOR),
    ]
    pid = os.posix_spawn(argv[0], list(argv), environment, file_actions=actions)
    return EngineProcess(pid, os.pidfd_open(pid))


def find(directory: Path, program: str) -> list[int]:
    """Ids of the processes that run `program` (or are about to) in `directory`."""
    try:
        wanted = directory.stat()
    except FileNotFoundError:
        return []
    return [pid for pid in _pids() if _runs_in(pid, wanted, program)]


def adopt(pid: int, directory: Path, program: str) -> EngineProcess | None:
    """The process, if it is still what `find` saw."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if not _runs_in(pid, directory.stat(), program):
        os.close(descriptor)
        return None
    return EngineProcess(pid, descriptor)


def arguments(pid: int) -> list[str]:
    """Its command line; empty if it is gone. PostgreSQL's backends show what they do in place of theirs."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def _pids() -> Iterator[int]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            yield int(name)


def _runs_in(pid: int, directory: os.stat_result, program: str) -> bool:
    try:
        current = os.stat(f"/proc/{pid}/cwd")
        if (current.st_dev, current.st_ino) != (directory.st_dev, directory.st_ino):
            return False
        name = Path(f"/proc/{pid}/comm").read_text().rstrip("\n")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False  # ended just now, a zombie, or somebody else's
    return name == program or drop.__file__ in arguments(pid)
