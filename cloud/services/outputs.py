"""Outputs of a hop: decided by a transaction, published after its commit.

Published before it, an attempt that is rolled back would have spoken already, and the next one may decide otherwise,
as a device was created or a route changed meanwhile. So the outputs are kept in the transaction that decides and counts
them, published when it is committed, and forgotten in the next one. What a process leaves behind that is killed in
between, or that cannot reach the bus, is found by the sweep of any process of the hop. A batch may so be published
twice; the hops behind it pass over records that they have.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from cloud.db.database import DatabaseError
from cloud.model.output import Output, Unsent
from cloud.services.store import Store, Transaction
from protocols.messages import Lane
from sync.bus.contract import Bus, BusError
from tidegate.logs import get_logger
from tidegate.pause import pause

SWEEP_EVERY_S: Final = 2.0
"""What two looks in a row find unsent, and nobody here is sending, was left behind."""
SWEEP_MAX: Final = 32
"""Batches of one look, of at most a few hundred KiB each; the next look follows."""

_log = get_logger("outputs")


class Outputs:
    """Of one hop in one process."""

    def __init__(self, hop: str, topics: Sequence[str], bus: Bus, store: Store) -> None:
        """`topics`: those that the hop declares to write."""
        self._hop = hop
        self._topics = topics
        self._bus = bus
        self._store = store
        self._sending: set[int] = set()
        self._sent: set[int] = set()
        """Published, and not forgotten yet."""
        self._left: set[int] = set()
        """Found by the last look."""

    async def run(self, lane: Lane, work: Callable[[Transaction], Awaitable[Sequence[Output]]]) -> None:
        """Runs `work` in a transaction and publishes what it returns. Raises DatabaseError: do it again; BusError: it
        is done, and what could not be published will be."""
        forgotten = sorted(self._sent)
        self._sent.difference_update(forgotten)
        kept: list[Unsent] = []

        async def with_outputs(tx: Transaction) -> None:
            kept[:] = await self._keep(tx, lane, await work(tx))
            if forgotten:
                await tx.remove_unsent(forgotten)

        try:
            await self._store.run(with_outputs)
        except BaseException:
            self._sent.update(forgotten)
            raise
        await self._publish(kept)

    async def sweep_forever(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await pause(stop, SWEEP_EVERY_S)
            try:
                await self.sweep()
            except (BusError, DatabaseError) as error:
                _log.warning("outputs wait", hop=self._hop, reason=str(error))

    async def sweep(self) -> None:
        """One look. Raises BusError or DatabaseError."""
        forgotten = sorted(self._sent)
        found = await self._store.run(lambda tx: self._look(tx, forgotten))
        self._sent.difference_update(forgotten)
        unknown = [unsent for unsent in found if unsent.number not in self._sending | self._sent]
        left = [unsent for unsent in unknown if unsent.number in self._left]
        self._left = {unsent.number for unsent in unknown}
        await self._publish(left)

    async def _look(self, tx: Transaction, forgotten: Sequence[int]) -> list[Unsent]:
        if forgotten:
            await tx.remove_unsent(forgotten)
        return await tx.unsent(self._hop, SWEEP_MAX)

    async def _keep(self, tx: Transaction, lane: Lane, outputs: Sequence[Output]) -> list[Unsent]:
        for output in outputs:
            if output.topic not in self._topics:
                raise ValueError(f"{self._hop} does not declare that it writes {output.topic}")
        if not outputs:
            return []
        numbers = await tx.add_unsent(self._hop, lane, outputs)
        return [Unsent(number, lane, output) for number, output in zip(numbers, outputs, strict=True)]

    async def _publish(self, batches: Sequence[Unsent]) -> None:
        """All of them side by side; one that fails is left to the sweep. Raises its BusError."""
        self._sending.update(unsent.number for unsent in batches)
        try:
            results = await asyncio.gather(*map(self._publish_one, batches), return_exceptions=True)
        finally:
            self._sending.difference_update(unsent.number for unsent in batches)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _publish_one(self, unsent: Unsent) -> None:
        await self._bus.publish(unsent.output.topic, unsent.output.data, lane=unsent.lane)
        self._sent.add(unsent.number)
