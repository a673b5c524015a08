"""Ports on loopback that nobody listens on."""

from __future__ import annotations

import socket
import sys
from collections.abc import Container
from typing import Final

from tidegate.console import UserError

TRIES_MAX: Final = 200
"""Whoever has this many in a row taken has another problem."""
_claims: Final[dict[tuple[int, socket.SocketKind], socket.socket]] = {}
"""What this process has chosen, until it ends."""


def free_port(wanted: int, taken: Container[int] = (), family: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """`wanted`, or the first after it that nobody listens on, that no other demo has chosen and that is not in `taken`.
    Raises UserError."""
    for port in range(wanted, wanted + TRIES_MAX):
        if port not in taken and _is_free(port, family) and _claim(port, family):
            return port
    raise UserError(f"no port from {wanted} to {wanted + TRIES_MAX - 1} is free", "end what listens there")


def any_port(family: socket.SocketKind) -> int:
    """For what nobody has to know by heart: so that two demos that start at once do not choose the same one."""
    with socket.socket(socket.AF_INET, family) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_free(port: int, family: socket.SocketKind) -> bool:
    with socket.socket(socket.AF_INET, family) as probe:
        if family is socket.SOCK_STREAM:
            # As servers do, so that a port of a connection that is only being forgotten counts as free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _claim(port: int, family: socket.SocketKind) -> bool:
    """Two demos that start at the same moment must not choose the same port: a name of Linux's own, which is no file
    and ends with its process, says whose it is."""
    if sys.platform != "linux" or (port, family) in _claims:
        return True
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0tidegate/demo/{family.name}/{port}")
    except OSError:
        claim.close()
        return False
    _claims[port, family] = claim
    return True
