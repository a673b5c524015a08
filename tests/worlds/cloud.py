"""The cloud as production wires it (cloud/app.py): one process or several, on one JetStream and one database."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Final

from cloud.model.rejected import RejectFilter, RejectReplay
from cloud.services.credit import CreditWatch
from cloud.services.intake import GatewayBooks, GatewayCredit, GatewayIntake
from cloud.services.processor import Processor
from cloud.services.receiver import Receiver
from cloud.services.reject_replay import RejectReplays
from cloud.services.replay import InboxReplay
from cloud.services.runner import ServiceRunner
from cloud.services.transponder import Transponder
from cloud.topics import TOPICS
from protocols.messages import Command
from sync.link.frames import CommandProgress
from sync.link.server import GatewaySession, serve
from sync.registry import RegistryChange
from tests.worlds.clocks import true_ms
from tests.worlds.cloud_book import CloudBook
from tests.worlds.gateway import Gateway
from tests.worlds.jetstream import JetBus, Nats
from tests.worlds.laws import Laws
from tests.worlds.loop import Process, SimulatedLoop
from tests.worlds.network import End, die
from tests.worlds.order import OrderWatch
from tests.worlds.registry import PROJECT, WorldRegistry
from tests.worlds.store import MemoryStore
from tests.worlds.trace import Trace

LAYOUTS: Final = (
    (("links", "processor", "transponder", "replay"),),
    (("links",), ("processor", "transponder", "replay")),
    (("links",), ("processor", "transponder", "replay"), ("processor", "transponder")),
)
"""Which parts run in which process."""


class Cloud:
    """What is durable, and the processes that work on it."""

    def __init__(
        self, loop: SimulatedLoop, rng: random.Random, laws: Laws, trace: Trace, gateways: list[Gateway]
    ) -> None:
        self.loop = loop
        self.random = rng
        self.replays = 0
        """Of rejects, that were asked for."""
        self.trace = trace
        self.laws = laws
        self.gateways = gateways
        self.sources = {gateway.name: number for number, gateway in enumerate(gateways, 1)}
        self.uncertain = 0.0
        """Share of commits in which the connection to the database is lost."""
        self.store = MemoryStore(self._pause, self._uncertain, lambda tx: self.book.on_commit(tx))
        self.store.tables.projects = dict.fromkeys(self.sources.values(), PROJECT)
        self.book = CloudBook(self.store.tables, laws, trace, {self.sources[each.name]: each.book for each in gateways})
        self.registry = WorldRegistry(loop, self.store)
        self.nats = Nats(loop, rng, trace, TOPICS, self.book.on_synced)
        self.admin = Process(loop, "admin", lambda: 0.001)
        """Whoever uses the API."""
        self.processes = [
            CloudProcess(self, f"cloud{number}", parts) for number, parts in enumerate(rng.choice(LAYOUTS), 1)
        ]

    @property
    def drained(self) -> bool:
        """Whether nothing is on its way."""
        tables = self.store.tables
        return (
            self.nats.empty
            and not tables.unsent
            and not tables.reject_replays
            and all(each.process is not None for each in self.processes)
            and not any(
                (held.project_id, held.row.network_id, held.row.alias_key, held.row.alias) in tables.aliases
                for held in tables.inbox.values()
            )
        )

    @property
    def standing(self) -> str:
        """For people."""
        tables = self.store.tables
        nats = "empty" if self.nats.empty else "busy"
        waiting = f"{len(tables.inbox)} in the inbox, {len(tables.unsent)} unsent, {len(tables.reject_replays)} replays"
        return f"{waiting}, JetStream {nats}"

    def want_replay(self) -> None:
        """Of all rejects, as the API takes it."""
        rejects, replays = self.store.tables.rejects, self.store.tables.reject_replays
        self.trace.add("api", "wants rejects decoded again", len(rejects))
        self.replays += 1
        replays[self.replays] = RejectReplay(
            self.replays, PROJECT, RejectFilter(), max(rejects, default=0), 0, len(rejects)
        )

    async def _pause(self) -> None:
        if self.random.random() < 0.4:  # several steps of the database for one of ours cost the most time of a world
            await asyncio.sleep(0.0005 + 0.002 * self.random.random())

    def _uncertain(self) -> bool | None:
        if self.uncertain and self.random.random() < self.uncertain:
            return self.random.random() < 0.5
        return None

    def crash_database(self, *, back_s: float) -> None:
        self.trace.add("database", "crash")
        self.store.crash()
        self.loop.outside(back_s, setattr, self.store, "down", False)

    def crash_nats(self, *, back_s: float) -> None:
        if self.nats.up:
            self.nats.crash()
            self.loop.outside(back_s, self.nats.start)


class CloudProcess:
    """One process: runs again whenever it ends."""

    def __init__(self, cloud: Cloud, name: str, parts: tuple[str, ...]) -> None:
        self.cloud = cloud
        self.name = name
        self.parts = parts
        self.process: Process | None = None
        self.lives = 0
        self._ends: list[End] = []

    def boot(self) -> None:
        if self.process is not None:
            return
        cloud = self.cloud
        self.lives += 1
        self.process = Process(cloud.loop, f"{self.name}.{self.lives}", lambda: 0.001)
        cloud.trace.add(self.name, "up", *self.parts)
        self.process.do(self._start, self.process)

    def crash(self, *, power: bool, back_s: float) -> None:
        """`power`: the other ends of its connections are not told."""
        process = self.process
        if process is None:
            return
        cloud = self.cloud
        self.process = None
        process.kill()
        cloud.trace.add(self.name, "power cut" if power else "killed")
        if "links" in self.parts:
            for gateway in cloud.gateways:
                gateway.path.listen = None
        for end in self._ends:
            die(end, told=not power)
        self._ends.clear()
        cloud.loop.outside(0.01 + 2.0 * cloud.random.random() * power, cloud.store.abandon, process)
        cloud.loop.outside(back_s, self.boot)

    def _start(self, process: Process) -> None:
        cloud = self.cloud
        bus = JetBus(cloud.nats)
        stop = asyncio.Event()
        replica = cloud.registry.replica()
        runs: list[Callable[[asyncio.Event], Coroutine[Any, Any, None]]] = []
        if "processor" in self.parts:
            runs.append(ServiceRunner(Processor(replica), bus, cloud.store).run)
        if "transponder" in self.parts:
            runs.append(ServiceRunner(Transponder(lambda: true_ms(cloud.loop.now)), bus, cloud.store).run)
        if "replay" in self.parts:
            replay = InboxReplay(replica, bus, cloud.store)
            replica.on_change = lambda project_id: process.do(replay.want, project_id)
            runs += [replay.run, RejectReplays(replica, bus, cloud.store).run]
        if "links" in self.parts:
            receiver = Receiver(bus, cloud.store)
            credit = CreditWatch(cloud.nats.stats)
            runs += [receiver.run, credit.run]
            for gateway in cloud.gateways:
                gateway.path.listen = lambda end, name=gateway.name: self._accept(process, receiver, credit, name, end)
        for run in runs:
            process.run(run(stop)).add_done_callback(lambda task: self._ended(process, task))

    def _ended(self, process: Process, task: asyncio.Task[None]) -> None:
        if process.alive:
            self.cloud.trace.add(self.name, "ended", repr(task.exception()))
            self.crash(power=False, back_s=1.0)

    def _accept(self, process: Process, receiver: Receiver, credit: CreditWatch, name: str, end: End) -> None:
        self._ends = [other for other in self._ends if not other.closed]
        self._ends.append(end)
        process.run(self._serve(receiver, credit, name, end)).add_done_callback(self._served)

    def _served(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self.cloud.laws.broken("nothing fails unseen", f"a session: {task.exception()!r}")

    async def _serve(self, receiver: Receiver, credit: CreditWatch, name: str, end: End) -> None:
        source_id = self.cloud.sources[name]
        session = GatewaySession(
            project_id=PROJECT,
            gateway_id=name,
            intake=OrderWatch(GatewayIntake(receiver, source_id), self.cloud.book.gateways[source_id], self.cloud.laws),
            registry=_NoRegistry(),
            commands=_NoCommands(),
            books=GatewayBooks(receiver, source_id, lambda standing: None),
            credit=GatewayCredit(credit),
            wall_ms=lambda: true_ms(self.cloud.loop.now),
        )
        await serve(end, session)


class _NoRegistry:
    """Gateways resolve nothing here."""

    async def changes(self, base_revision: int) -> AsyncIterator[RegistryChange]:
        await asyncio.Event().wait()
        return
        yield


class _NoCommands:
    async def commands(self) -> AsyncIterator[Command]:
        await asyncio.Event().wait()
        return
        yield

    async def progress(self, progress: CommandProgress) -> None:
        raise AssertionError("nobody sends commands")
