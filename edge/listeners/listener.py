"""What the gateway knows of a listener, whatever protocol it speaks.

A listener takes devices' messages of one network and hands them to the collector; what a device is promised leaves in
`Waiter.recorded`, and not sooner. Kinds of listeners stand in catalog.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from edge.listeners.attendance import UNATTENDED, Attendance
from edge.listeners.collector import Collector
from edge.listeners.refusals import Refusals
from edge.listeners.way import Way
from protocols.batch import BatchKey
from sync.registry import Registry


class ListenerCounters(msgspec.Struct):
    """Of one listener, since start. What was turned away before it was a record is counted by `Refusals`, by reason."""

    connections: int = 0
    """Open now: connections, ports that are plugged in, sources or brokers that are heard."""
    connections_total: int = 0
    recorded: int = 0
    """Records on disk."""
    refused: dict[str, int] = {}
    """Records not taken, by reason."""
    malformed: int = 0
    """Packets, frames or requests against the protocol, the framing or a limit."""
    auth_failures: int = 0
    bytes_in: int = 0


class Shared(msgspec.Struct, frozen=True):
    """What the listeners of a gateway have in common, to be made of."""

    registry: Registry
    """The replica's, which changes under them; `Listener.recheck` says when."""
    collector: Collector
    data_dir: Path
    """Of the gateway; a listener that keeps something has a folder or a file of its own in it."""
    is_logged: Callable[[BatchKey], bool] = lambda _: False
    """Whether the log has a batch, also one of an earlier run."""
    true_ms: Callable[[], int] | None = None
    """Unix milliseconds, as true as is known: for what expires. None: the collector's wall clock."""
    by_kind: dict[str, Any] = {}
    """What the listeners of one kind have in common among themselves, made by the first."""
    attendance: Attendance = UNATTENDED
    """To be told who comes and goes."""


class Listener(Protocol):
    """One section of the configuration, at work."""

    @property
    def name(self) -> str:
        """Unique in the gateway; stands in each record's origin."""
        ...

    @property
    def kind(self) -> str:
        """The section of the configuration: `mqtt`, `tcp`, …"""
        ...

    @property
    def network_id(self) -> str: ...

    @property
    def place(self) -> str:
        """Where devices find it, or it finds them, as a person would write it: `0.0.0.0:1883`, `/dev/ttyUSB0`."""
        ...

    @property
    def port(self) -> int:
        """What it listens on; known after `start`; 0: nothing."""
        ...

    @property
    def is_listening(self) -> bool:
        """Between `start` and `close`, also while something outside is missing, of which `trouble` tells."""
        ...

    @property
    def trouble(self) -> str:
        """What is missing at the moment, such as an adapter that is not plugged in; empty: nothing."""
        ...

    @property
    def counters(self) -> ListenerCounters: ...

    @property
    def refusals(self) -> Refusals: ...

    async def start(self) -> None:
        """Listens. Raises UserError where somebody has to do something first: a port in use, a certificate that cannot
        be read. What comes and goes by itself (an adapter, a peer, a broker) is waited for instead."""
        ...

    async def close(self) -> None:
        """Takes no more, answers what came as far as it is recorded in time, then closes what it holds. May be called
        more than once, and after a `start` that raised."""
        ...

    def recheck(self) -> None:
        """The registry changed: whoever is no longer let in is cut off."""
        ...

    def way(self, alias_key: str, alias: str) -> Way | None:
        """To a device of its network that can be reached through it now; None: it cannot."""
        ...
