"""Killing an embedded engine under the cloud that runs it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil


def kill_engine(folder: Path, program: str) -> None:
    """The server of a site's cloud: it works in its data directory, whatever that is called where it was confined to.
    PostgreSQL's workers end when they see that it is gone."""
    ours = {entry.stat().st_ino for entry in (folder / "cloud").rglob("*") if entry.is_dir()}
    found = [
        process.pid
        for process in psutil.process_iter(["name"])
        if process.info["name"] == program and _works_in(process.pid) in ours
    ]
    (server,) = [pid for pid in found if psutil.Process(pid).ppid() not in found]
    os.kill(server, signal.SIGKILL)


def _works_in(pid: int) -> int | None:
    """The inode of its working directory; None for one that has ended and is not collected yet."""
    try:
        return Path(f"/proc/{pid}/cwd").stat().st_ino
    except FileNotFoundError:
        return None
