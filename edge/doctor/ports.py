"""The ports that listeners and the status page are configured for: free, or held by whom."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from edge.doctor.finding import Finding, Site, State, failed, ok
from edge.listeners.config import Socket
from edge.listeners.sockets import address

_PROC: Final = Path("/proc")
_LISTENS: Final = {"tcp": "0A", "udp": "07"}
"""The state of a socket that waits for anybody, in proc(5)'s net/tcp and net/udp."""


def check(site: Site) -> Iterator[Finding]:
    running = site.running
    own = {} if running is None else running.ports
    for _, listener in site.config.listeners:
        for wanted in listener.needs.sockets:
            held = running is not None and own.get(listener.name) == wanted.port
            yield of(f"port of {listener.name}", wanted, running.pid if running is not None and held else 0)
    status = site.config.status
    held = running is not None and bool(running.status_url) and urlsplit(running.status_url).port == status.port
    yield of("port of the status page", Socket(status.host, status.port), running.pid if running and held else 0)


def of(what: str, wanted: Socket, own_pid: int) -> Finding:
    """`own_pid`: of the running gateway where that listens there; 0: it does not."""
    shown = f"{wanted.protocol} {address(wanted.host, wanted.port)}"
    if not wanted.port:
        return ok(what, f"{shown}: any free one")
    if own_pid:
        return ok(what, f"{shown}: held by this gateway, process {own_pid}")
    error = _bind(wanted)
    if error is None:
        return ok(what, f"{shown}: free")
    if error.errno == errno.EADDRINUSE:
        return failed(what, f"{shown}: in use by {holder(wanted)}", "stop that, or give this one another port")
    if error.errno == errno.EACCES:
        remedy = "take a port above 1023, or let the service have CAP_NET_BIND_SERVICE (tidegate-edge service install)"
        return failed(what, f"{shown}: this user may not listen there", remedy)
    return failed(what, f"{shown}: {error.strerror or error}", "set its host to an address of this machine, or 0.0.0.0")


def occupied(wanted: Socket) -> str:
    """Why nobody can listen there now; empty: one can."""
    finding = of("", wanted, 0)
    return finding.seen if finding.state is State.FAILED else ""


def _bind(wanted: Socket) -> OSError | None:
    """Takes the port for a moment, as a listener would."""
    kind = socket.SOCK_STREAM if wanted.protocol == "tcp" else socket.SOCK_DGRAM
    try:
        found = socket.getaddrinfo(wanted.host or None, wanted.port, type=kind, flags=socket.AI_PASSIVE)
        for family, _, _, _, place in found:
            with socket.socket(family, kind) as sock:
                if wanted.protocol == "tcp":
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind(place)
    except OSError as error:
        return error
    return None


def holder(wanted: Socket) -> str:
    """`mosquitto, process 812`, as far as this user may look."""
    sockets = {f"socket:[{inode}]" for inode in _inodes(wanted)}
    for process in _PROC.iterdir():
        if process.name.isdecimal() and _holds(process, sockets):
            name = (process / "comm").read_text().strip()
            return f"{name}, process {process.name}"
    return "a process that only root could name"


def _inodes(wanted: Socket) -> Iterator[str]:
    port = f":{wanted.port:04X}"
    for name in (wanted.protocol, f"{wanted.protocol}6"):
        try:
            lines = (_PROC / "net" / name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            words = line.split()
            if words[1].endswith(port) and words[3] == _LISTENS[wanted.protocol]:
                yield words[9]


def _holds(process: Path, sockets: set[str]) -> bool:
    try:
        return any(os.readlink(descriptor) in sockets for descriptor in (process / "fd").iterdir())
    except OSError:  # another user's, or it has just ended
        return False
