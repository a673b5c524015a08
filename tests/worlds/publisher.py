"""A process of the user's own beside a gateway, which publishes batches under keys of its own, and publishes again,
under the same key, what has no answer: over restarts of the gateway too."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from typing import Final, Protocol

from protocols.batch import BatchKey, RecordBatch, encode_records
from protocols.messages import Clock, Origin
from sync.bus.contract import BusError, BusRefusedError
from tests.worlds.clocks import MachineClock
from tests.worlds.devices import Name
from tests.worlds.edge_bus import EdgeBus
from tests.worlds.loop import Process

ANSWER_S: Final = 6.0
RETRY_S: Final = 0.7
LANES: Final = 2
"""Batches under way at once: one may fail while a later one is taken."""


class Host(Protocol):
    """A gateway as the publisher finds it."""

    bus: EdgeBus

    def acknowledged(self, names: list[Name]) -> None: ...


class Publisher:
    def __init__(
        self,
        process: Process,
        rng: random.Random,
        name: str,
        host: Callable[[], Host | None],
        clock: MachineClock,
        network_id: str,
        *,
        batches: int,
        until_s: float,
    ) -> None:
        self.name = name
        self.published = 0
        """Messages, one a record."""
        self._random = rng
        self._host = host
        self._clock = clock
        self._origin = Origin(network_id, "serial", name, "", "", "own")
        self._run = rng.getrandbits(63)
        self._next = 0
        self._refused = 0
        self._batches = batches
        self._pause_s = until_s * LANES / batches
        self._busy = LANES
        for _ in range(LANES):
            process.run(self._publish_all())

    @property
    def done(self) -> bool:
        return not self._busy

    async def _publish_all(self) -> None:
        while self._next < self._batches:
            counter = self._next
            self._next += 1
            await asyncio.sleep(2 * self._pause_s * self._random.random())
            await self._publish(counter)
        self._busy -= 1

    async def _publish(self, counter: int) -> None:
        count = self._random.randrange(1, 4)
        numbers = range(self.published, self.published + count)
        self.published += count
        payloads = [json.dumps({"d": self.name, "n": number}).encode() for number in numbers]
        key = BatchKey(self._run, counter)
        clock = Clock(self._clock.boot, self._clock.wall_ms() - self._clock.boot_ms(), self._clock.state())
        received_ms = self._clock.wall_ms()
        while True:
            batch = RecordBatch(key, clock, received_ms, [self._origin], [0] * count, [0] * count, payloads)
            host = self._host()
            if host is not None:
                try:
                    async with asyncio.timeout(ANSWER_S):
                        await host.bus.publish("inbound", encode_records(batch), key=key)
                    host.acknowledged([(self.name, number) for number in numbers])
                    return
                except (BusError, TimeoutError):
                    pass
                except BusRefusedError:  # nothing was kept: under a new key
                    self._refused += 1
                    key = BatchKey(self._run, self._batches + self._refused)
            await asyncio.sleep(RETRY_S * (0.5 + self._random.random()))
