"""The adapters that serial listeners are configured for."""

from __future__ import annotations

import getpass
import grp
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edge.doctor.finding import Finding, Site, failed, ok, warning

_BY_ID: Final = Path("/dev/serial/by-id")


def check(site: Site) -> Iterator[Finding]:
    for _, listener in site.config.listeners:
        for port in listener.needs.serial_ports:
            yield of(f"serial port of {listener.name}", port)


def of(what: str, port: str) -> Finding:
    path = _found(port)
    if path is None:
        there = sorted(str(entry) for entry in _BY_ID.iterdir()) if _BY_ID.is_dir() else []
        remedy = (
            f"plug it in, or set one that is there: {', '.join(there)}"
            if there
            else "plug the adapter in (dmesg -w shows it)"
        )
        return warning(what, f"{port} is not there: the gateway waits for it", remedy)
    found = path.stat()
    if not stat.S_ISCHR(found.st_mode):
        return failed(what, f"{port} is no serial port", "give the path of a device, such as /dev/ttyUSB0")
    if os.access(path, os.R_OK | os.W_OK):
        return ok(what, f"{port} ({path.resolve()})")
    try:
        group = grp.getgrgid(found.st_gid).gr_name
    except KeyError:
        group = str(found.st_gid)
    user = getpass.getuser()
    seen = f"{user} may not open {port}, which is for the group {group}"
    if user in _members(group):
        return failed(
            what, f"{seen}, and was put into it after this session began", "log in again, or restart the service"
        )
    return failed(what, seen, f"as root: usermod -aG {group} {user}, then log in again or restart the service")


def _found(port: str) -> Path | None:
    """The device file; None: it is not there."""
    from edge.listeners.serial import find_port  # and with it the library: only where an adapter is configured

    found = find_port(port)
    return None if found is None else Path(found)


def _members(group: str) -> list[str]:
    try:
        return grp.getgrnam(group).gr_mem
    except KeyError:
        return []
