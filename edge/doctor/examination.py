"""All checks, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from edge.doctor import clock, cloud, disk, folder, gateway, limits, peers, ports, serial_ports, tls, versions
from edge.doctor.finding import Finding, Site, failed

Check = Callable[[Site], Iterator[Finding]]

CHECKS: Final[tuple[Check, ...]] = (
    versions.check,
    clock.check,
    folder.check,
    disk.check,
    limits.check,
    ports.check,
    serial_ports.check,
    peers.check,
    tls.check,
    cloud.check,
    gateway.check,
)


def examine(site: Site, checks: tuple[Check, ...] = CHECKS) -> Iterator[Finding]:
    """What each check found, as soon as it has. One that fails itself keeps no other from its work."""
    for check in checks:
        try:
            yield from check(site)
        except Exception as error:  # noqa: BLE001 - whatever this machine has that nobody thought of, the rest is of use
            name = check.__module__.rpartition(".")[2]
            yield failed(name, f"could not be looked at: {type(error).__name__}: {error}", "tell us, with this line")
