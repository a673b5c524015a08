"""A reader of an ephemeral channel in the cloud: a plain NATS subscription, which no stream keeps anything for.

It sees what publishers send, also what JetStream then does not take and the publisher sends again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Final

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from sync.bus.contract import BusError
from sync.bus.jetstream_reader import key_of, lane_of

if TYPE_CHECKING:
    from sync.bus.jetstream import JetStreamBus

TAIL_BYTES_MAX: Final = 8 * 1024 * 1024
"""What waits for a reader that falls behind, before it loses the oldest: two of the largest batches."""

TAIL_BATCHES_MAX: Final = 1024
"""The same for small batches."""


class TailDelivery:
    """The Delivery of contract.py; there is nobody who would want to know the answer."""

    __slots__ = ("data", "key", "lane", "redelivered")

    def __init__(self, message: Msg) -> None:
        self.data: bytes = message.data
        self.lane = lane_of(message.subject)
        self.key = key_of(message)
        self.redelivered = False

    async def ack(self) -> None: ...

    async def nak(self, delay_s: float = 0.0) -> None: ...

    async def refuse(self, code: str, detail: str) -> None: ...


class TailReader:
    """The Reader of contract.py for what comes while it reads."""

    def __init__(self, bus: JetStreamBus, client: Client, topic: str) -> None:
        self._bus = bus
        self._client = client
        self._topic = topic
        self._queue: deque[TailDelivery] = deque()
        self._queue_bytes = 0
        self._arrival = asyncio.Event()
        self._missed = 0
        self._closed = False

    @property
    def missed(self) -> int:
        return self._missed

    async def open(self) -> None:
        """Called once, by the bus. From its return on, nothing is missed but what is counted."""
        self._subscription = await self._client.subscribe(f"{self._topic}.*", cb=self._on_message)
        await self._client.flush()

    async def fetch(self, batches_max: int, bytes_max: int) -> list[TailDelivery]:
        while not self._queue:
            if self._closed:
                raise BusError("the reader is closed")
            self._arrival.clear()
            await self._arrival.wait()
        taken = [self._pop()]
        size = len(taken[0].data)
        while self._queue and len(taken) < batches_max and self._queue[0].lane is taken[0].lane:
            size += len(self._queue[0].data)
            if size > bytes_max:
                break
            taken.append(self._pop())
        return taken

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._arrival.set()
        self._bus.forget(self)
        with contextlib.suppress(nats.errors.Error):  # the connection is gone, and the subscription with it
            await self._subscription.unsubscribe()

    async def on_reconnected(self) -> None:
        """NATS subscribes again by itself."""

    async def _on_message(self, message: Msg) -> None:
        delivery = TailDelivery(message)
        self._queue.append(delivery)
        self._queue_bytes += len(delivery.data)
        while len(self._queue) > 1 and (self._queue_bytes > TAIL_BYTES_MAX or len(self._queue) > TAIL_BATCHES_MAX):
            self._pop()
            self._missed += 1
        self._arrival.set()

    def _pop(self) -> TailDelivery:
        delivery = self._queue.popleft()
        self._queue_bytes -= len(delivery.data)
        return delivery
