"""The project's registry: one truth in the database, and a replica in each process, a moment behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from protocols.codecs import CodecSpec
from sync.registry import Alias, Blueprint, Device, Network, Registry, RegistryChange
from tests.worlds.devices import GARBLED, KEYED, PLAIN
from tests.worlds.loop import SimulatedLoop
from tests.worlds.store import MemoryStore, MemoryTransaction

PROJECT: Final = "p"
NETWORKS: Final = (Network(PLAIN), Network(KEYED, spec=CodecSpec(key_paths=("boot", "seq"))), Network(GARBLED))
MENDED: Final = Network(GARBLED, spec=CodecSpec(time_path=""))
"""Takes times that are none for what they are."""
LAG_S: Final = 0.2
"""How far a replica is behind at most, unless a world wants it further."""


class WorldRegistry:
    """What is committed, and who wants to know."""

    def __init__(self, loop: SimulatedLoop, store: MemoryStore) -> None:
        self.devices: list[Device] = []
        self.networks = NETWORKS
        self.revision = 1
        self.lag_s = LAG_S
        self._loop = loop
        self._store = store
        self._replicas: list[Replica] = []
        store.tables.revisions[PROJECT] = 1

    def add(self, name: str, network_id: str, *, stopped: bool = False) -> None:
        """From the start."""
        number = len(self.devices) + 1
        route = {"device_data_event": []} if stopped else None
        alias = Alias(network_id, "serial", name)
        self.devices.append(Device(number, "s", "b", (alias,), route))
        self._store.tables.aliases[PROJECT, network_id, "serial", name] = number

    async def register(self, name: str, network_id: str) -> None:
        await self._change(lambda: self.add(name, network_id))

    async def mend(self) -> None:
        """The codec of the network GARBLED."""
        await self._change(lambda: setattr(self, "networks", (*NETWORKS[:-1], MENDED)))

    async def _change(self, change: Callable[[], None]) -> None:
        """As the API makes them: waits for those that hold the newest revision."""
        tx = MemoryTransaction(self._store)
        await self._store.locks.take(tx, ("project", PROJECT))
        change()
        self.revision += 1
        self._store.tables.revisions[PROJECT] = self.revision
        self._store.locks.release(tx)
        for replica in list(self._replicas):
            self._loop.outside(self.lag_s * self._loop.random.random(), replica.catch_up)

    def replica(self) -> Replica:
        """For a new process."""
        replica = Replica(self)
        self._replicas.append(replica)
        return replica

    def change(self) -> RegistryChange:
        """All of it."""
        return RegistryChange(PROJECT, 0, self.revision, self.networks, (Blueprint("b"),), tuple(self.devices))


class Replica:
    """The Registries of cloud/services/processor.py."""

    def __init__(self, truth: WorldRegistry) -> None:
        self._truth = truth
        self._registry = Registry(PROJECT)
        self._registry.apply(truth.change())
        self.on_change: Callable[[str], None] = lambda project_id: None

    def catch_up(self) -> None:
        if self._registry.revision < self._truth.revision:
            self._registry.apply(self._truth.change())
            self.on_change(PROJECT)

    async def registry(self, project_id: str) -> Registry:
        return self._registry

    async def refresh(self, project_id: str, at_least_revision: int) -> Registry:
        await self._truth._store.pause()
        self.catch_up()
        return self._registry
