"""What the system lets the gateway have: open files and memory."""

from __future__ import annotations

import contextlib
import re
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edge.app import FILES_MAX
from edge.doctor.finding import Finding, Site, failed, ok, warning

MEMORY_BYTES_MIN: Final = 150_000_000
"""The gateway's 70 MB, as much again for thousands of connections."""

_PROC: Final = Path("/proc")
_CGROUP: Final = Path("/sys/fs/cgroup")


def check(site: Site) -> Iterator[Finding]:
    wanted = FILES_MAX + sum(listener.files_max for _, listener in site.config.listeners)
    if site.running is None:
        yield of_files(resource.getrlimit(resource.RLIMIT_NOFILE)[1], wanted)
    elif (limit := _files_of(site.running.pid)) is not None:
        yield of_files(limit, wanted)
    yield of_memory(_available((_PROC / "meminfo").read_text()), _group_limit())
    if site.running is not None:
        with contextlib.suppress(OSError):
            yield ok("gateway memory", f"{_rss(_PROC / str(site.running.pid)) / 1e6:.0f} MB")


def of_files(limit: int, wanted: int) -> Finding:
    """`limit`: the hard one."""
    if limit == resource.RLIM_INFINITY or limit >= wanted:
        shown = "any number" if limit == resource.RLIM_INFINITY else f"{limit:,}"
        return ok("open files", f"{shown} may be open, {wanted:,} are the most that listeners ask for")
    remedy = f"set LimitNOFILE={wanted} in the unit (tidegate-edge service install does), or lower connections_max"
    return warning("open files", f"{limit:,} may be open, {wanted:,} are the most that listeners ask for", remedy)


def of_memory(available: int, group_limit: int | None) -> Finding:
    seen = f"{available / 1e6:,.0f} MB available" + (f", {group_limit / 1e6:,.0f} MB allowed" if group_limit else "")
    if available < MEMORY_BYTES_MIN // 3:
        return failed("memory", seen, "end what else runs here")
    if min(available, group_limit or available) < MEMORY_BYTES_MIN:
        return warning("memory", f"{seen}; the gateway takes up to 70 MB, and 10 kB a connection", "leave it 150 MB")
    return ok("memory", seen)


def _available(meminfo: str) -> int:
    """Of proc(5)'s meminfo."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo, re.MULTILINE)
    return int(found[1]) * 1024 if found else MEMORY_BYTES_MIN


def _group_limit() -> int | None:
    """Of this process's control group; None: there is none."""
    with contextlib.suppress(OSError, ValueError):
        return int((_CGROUP / "memory.max").read_text())
    return None


def _files_of(pid: int) -> int | None:
    with contextlib.suppress(OSError):
        found = re.search(r"^Max open files\s+\S+\s+(\d+)", (_PROC / str(pid) / "limits").read_text(), re.MULTILINE)
        return int(found[1]) if found else resource.RLIM_INFINITY
    return None


def _rss(process: Path) -> int:
    return int((process / "statm").read_text().split()[1]) * resource.getpagesize()
