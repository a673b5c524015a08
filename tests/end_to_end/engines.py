"""Killing an embedded engine under the cloud that runs it, or making it stand still."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil


def kill_engine(folder: Path, program: str) -> None:
    """PostgreSQL's workers end when they see that it is gone."""
    os.kill(_engine(folder, program), signal.SIGKILL)


@contextlib.contextmanager
def engine_stopped(folder: Path, program: str) -> Iterator[None]:
    """It takes bytes, and does nothing with them."""
    pid = _engine(folder, program)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _engine(folder: Path, program: str) -> int:
    """The server of a cloud: it works in its data directory, whatever that is called where it was confined to."""
    ours = {entry.stat().st_ino for entry in (folder / "cloud").rglob("*") if entry.is_dir()}
    found = [
        process.pid
        for process in psutil.process_iter(["name"])
        if process.info["name"] == program and _works_in(process.pid) in ours
    ]
    (server,) = [pid for pid in found if psutil.Process(pid).ppid() not in found]
    return server


def _works_in(pid: int) -> int | None:
    """The inode of its working directory; None for one that has ended and is not collected yet."""
    try:
        return Path(f"/proc/{pid}/cwd").stat().st_ino
    except (FileNotFoundError, ProcessLookupError):
        return None
