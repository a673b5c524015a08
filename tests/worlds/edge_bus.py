"""The bus inside a gateway, in memory: keeps the contract of sync/bus/contract.py for one topic and one channel that
counts, and loses answers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from protocols.batch import BatchKey
from protocols.messages import Lane
from sync.bus.contract import BusError, BusRefusedError, Reader
from tests.worlds.loop import SimulatedLoop

PUBLISH_S: Final = 10.0
"""A publish's deadline."""


class EdgeBus:
    """`loses`: asked for each answer, whether it is lost on its way to the publisher."""

    def __init__(self, loop: SimulatedLoop, loses: Callable[[], bool]) -> None:
        self.unanswered = 0
        self._loop = loop
        self._loses = loses
        self._reader: EdgeReader | None = None
        self._waiting: deque[EdgeDelivery] = deque()

    async def publish(self, topic: str, data: bytes, *, key: BatchKey | None = None, lane: Lane = Lane.LIVE) -> None:
        answer: asyncio.Future[None] = self._loop.create_future()
        self.put(EdgeDelivery(self, data, lane, key, answer))
        self.unanswered += 1
        try:
            async with asyncio.timeout(PUBLISH_S):
                await answer
        except TimeoutError:
            raise BusError("no answer") from None
        finally:
            self.unanswered -= 1

    async def subscribe(self, topic: str, channel: str, *, ephemeral: bool = False) -> Reader:
        assert self._reader is None, "one reader of the channel"
        self._reader = EdgeReader(self, self._waiting)
        return self._reader

    async def close(self) -> None:
        """Nothing waits here that its publisher would not publish again."""

    def put(self, delivery: EdgeDelivery) -> None:
        self._waiting.append(delivery)
        if self._reader is not None:
            self._reader.arrived.set()

    def put_later(self, delivery: EdgeDelivery, delay_s: float) -> None:
        self._loop.call_later(delay_s, self.put, delivery)

    def answer(self, delivery: EdgeDelivery, error: Exception | None) -> None:
        if self._loses() or delivery.answer.done():
            return
        if error is None:
            delivery.answer.set_result(None)
        else:
            delivery.answer.set_exception(error)


class EdgeDelivery:
    """The Delivery of contract.py."""

    def __init__(
        self, bus: EdgeBus, data: bytes, lane: Lane, key: BatchKey | None, answer: asyncio.Future[None]
    ) -> None:
        self.data = data
        self.lane = lane
        self.key = key
        self.redelivered = False
        self.answer = answer
        self._bus = bus

    async def ack(self) -> None:
        self._bus.answer(self, None)

    async def nak(self, delay_s: float = 0.0) -> None:
        self.redelivered = True
        self._bus.put_later(self, delay_s)

    async def refuse(self, code: str, detail: str) -> None:
        self._bus.answer(self, BusRefusedError(code, detail))


class EdgeReader:
    """The Reader of contract.py."""

    missed = 0

    def __init__(self, bus: EdgeBus, waiting: deque[EdgeDelivery]) -> None:
        self.arrived = asyncio.Event()
        self._bus = bus
        self._waiting = waiting

    async def fetch(self, batches_max: int, bytes_max: int) -> Sequence[EdgeDelivery]:
        while not self._waiting:
            self.arrived.clear()
            await self.arrived.wait()
        taken = [self._waiting.popleft()]
        size = len(taken[0].data)
        while self._waiting and len(taken) < batches_max and size + len(self._waiting[0].data) <= bytes_max:
            taken.append(self._waiting.popleft())
            size += len(taken[-1].data)
        return taken

    async def close(self) -> None:
        """The bus ends with its process."""
