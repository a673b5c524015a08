"""Tries the configured listeners without log and link: what devices send is decoded, shown, and refused.

Devices are answered as by a gateway whose log takes nothing, so that nobody forgets a message that is kept nowhere:
MQTT gets no PUBACK and is cut off, HTTP 503, and so on. Listeners have a folder of their own, which is gone afterwards;
of the data folder only the registry is read.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from edge.app import REPLICA_FILE
from edge.identity import Enrolment
from edge.listeners.catalog import make_listener
from edge.listeners.clock import SystemClock
from edge.listeners.collector import Collector
from edge.listeners.config import ListenerConfig
from edge.listeners.listener import Listener, Shared
from edge.listeners.roster import Section
from edge.replica import Replica
from edge.status.tail import Tail, TailClient, TailFilter
from protocols.batch import BatchKey, decode_records
from protocols.messages import Lane
from protocols.shipment import Run
from sync.bus.contract import BusRefusedError, Reader
from sync.registry import Registry
from sync.resolve import Resolver
from tidegate.console import UserError

CODE: Final = "trial"
"""Why records are refused."""


class Started(msgspec.Struct, frozen=True):
    name: str
    kind: str
    place: str
    network: str
    trouble: str
    """Why it hears nobody at the moment; empty: it does."""


class Trial:
    """Listeners at work, and what they hear."""

    def __init__(self, sections: Sequence[Section], shared: Shared, tail: Tail) -> None:
        self._sections = sections
        self._shared = shared
        self._tail = tail
        self._listeners: list[Listener] = []
        heard = tail.open(TailFilter())
        assert heard is not None  # it is the only one who looks on
        self.heard: TailClient = heard

    @property
    def registry(self) -> Registry:
        return self._shared.registry

    @property
    def collector(self) -> Collector:
        return self._shared.collector

    async def start(self) -> list[Started]:
        """What became of each. One that cannot be started keeps no other from its work."""
        return [await self._start(kind, section) for kind, section in self._sections]

    async def _start(self, kind: str, section: ListenerConfig) -> Started:
        try:
            listener = make_listener(kind, section, self._shared)
            listener.refusals.watch = partial(self._tail.offer_refused, listener.name, listener.network_id)
            self._listeners.append(listener)
            await listener.start()
        except UserError as error:
            return Started(section.name, kind, "", section.network, error.message)
        return Started(listener.name, kind, _place(listener), listener.network_id, listener.trouble)

    async def close(self) -> None:
        for listener in reversed(self._listeners):
            await listener.close()


@contextlib.asynccontextmanager
async def trial(data_dir: Path, enrolment: Enrolment | None, sections: Sequence[Section]) -> AsyncIterator[Trial]:
    """Of these sections of the configuration; nothing listens yet."""
    tail = Tail()
    with tempfile.TemporaryDirectory(prefix="tidegate-trial-") as folder:
        registry = _registry(data_dir, enrolment, Path(folder))
        collector = Collector(_ShowingBus(registry, tail), SystemClock(), run=secrets.randbits(63))
        collecting = asyncio.create_task(collector.run())
        made = Trial(sections, Shared(registry, collector, Path(folder)), tail)
        try:
            yield made
        finally:
            await made.close()
            collecting.cancel()
            await asyncio.wait((collecting,))


def _registry(data_dir: Path, enrolment: Enrolment | None, folder: Path) -> Registry:
    """As the cloud sent it last, from a copy; empty where there is none."""
    project = "" if enrolment is None else enrolment.project_id
    with contextlib.suppress(FileNotFoundError):
        shutil.copyfile(data_dir / REPLICA_FILE, folder / REPLICA_FILE)
    replica = Replica(folder / REPLICA_FILE, project)
    replica.close()
    return replica.registry


def _place(listener: Listener) -> str:
    """With the port that it got, where any would do."""
    host, colon, port = listener.place.rpartition(":")
    return f"{host}:{listener.port}" if colon and port == "0" and listener.port else listener.place


class _ShowingBus:
    """A Bus that shows what is published, and takes none of it."""

    def __init__(self, registry: Registry, tail: Tail) -> None:
        self._registry = registry
        self._tail = tail

    async def publish(self, topic: str, data: bytes, *, key: BatchKey | None = None, lane: Lane = Lane.LIVE) -> None:
        batch = decode_records(data)
        resolver = Resolver(self._registry)
        resolver.add(Run(0, 0, 0, len(batch)), [batch])
        self._tail.offer(resolver.finish(), [batch.origins[place].listener for place in batch.origin_index])
        raise BusRefusedError(CODE, "listeners are being tried: nothing is kept")

    async def subscribe(self, topic: str, channel: str, *, ephemeral: bool = False) -> Reader:
        raise BusRefusedError(CODE, "nobody reads here")

    async def close(self) -> None: ...
