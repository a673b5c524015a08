"""Those that listeners connect to: brokers, devices that wait to be asked."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Final

from edge.doctor.finding import Finding, Site, ok, warning
from edge.listeners.config import Socket
from edge.listeners.sockets import address

STEP_S: Final = 5.0


def check(site: Site) -> Iterator[Finding]:
    running = () if site.accounting is None else site.accounting.listeners
    connected = {listener.name for listener in running if not listener.trouble}
    for _, listener in site.config.listeners:
        for peer in listener.needs.peers:
            what = f"peer of {listener.name}"
            # A second connection would end the first at many a device.
            if listener.name in connected:
                yield ok(what, f"{address(peer.host, peer.port)}: the running gateway has no trouble with it")
            else:
                yield of(what, peer)


def of(what: str, peer: Socket) -> Finding:
    shown = address(peer.host, peer.port)
    try:
        with socket.create_connection((peer.host, peer.port), STEP_S):
            return ok(what, f"{shown}: open")
    except OSError as error:
        reason = "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
        return warning(
            what, f"{shown}: {reason}; the gateway waits for it", "see that it is on, and its address and port"
        )
