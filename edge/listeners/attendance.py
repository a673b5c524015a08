"""Where a listener says who comes and goes."""

from __future__ import annotations

from typing import Final, Protocol


class Attendance(Protocol):
    """Names are the listener's, the network's, and the device's alias key and alias."""

    def connected(self, listener: str, network_id: str, alias_key: str, alias: str) -> None: ...

    def disconnected(self, listener: str, network_id: str, alias_key: str, alias: str, reason: str) -> None:
        """One of its connections has ended; `reason` for people: `keep-alive missed`, `disconnected`, …"""
        ...

    def reachable(self, listener: str, network_id: str, alias_key: str, alias: str, for_s: float) -> None:
        """A device that keeps no connection asks for its commands, each time that it does: there is a way to it for
        `for_s` seconds, unless it asks again."""
        ...


class Unattended:
    """Where nobody wants to know."""

    def connected(self, listener: str, network_id: str, alias_key: str, alias: str) -> None:
        pass

    def disconnected(self, listener: str, network_id: str, alias_key: str, alias: str, reason: str) -> None:
        pass

    def reachable(self, listener: str, network_id: str, alias_key: str, alias: str, for_s: float) -> None:
        pass


UNATTENDED: Final = Unattended()
