"""JetStream in memory: a server that answers a publish once it is synced, and the bus of each process that uses it.

Keeps the contract of sync/bus/contract.py and no more: a crash loses what is not synced, answers and acknowledgements
get lost, what is not acknowledged comes again after ACK_WAIT_S, and two readers share a channel.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from protocols.batch import BatchKey
from protocols.messages import Lane
from sync.bus.contract import BusError, BusFullError, Reader, TopicSpec
from sync.bus.jetstream_streams import ChannelStats, TopicStats
from sync.bus.lanes import LaneQueue
from tests.worlds.loop import PROCESS, Process, SimulatedLoop
from tests.worlds.trace import Trace

ACK_WAIT_S: Final = 10.0
PUBLISH_S: Final = 10.0
PULL_BATCHES: Final = 64


class Message:
    __slots__ = ("channels", "data", "deliveries", "lane", "number", "synced", "topic")

    def __init__(self, number: int, topic: str, lane: Lane, data: bytes, channels: set[str]) -> None:
        self.number = number
        self.topic = topic
        self.lane = lane
        self.data = data
        self.channels = channels
        """Those that have not acknowledged it."""
        self.synced = False
        self.deliveries = 0


class Nats:
    """The server. `on_synced` is told of each message that no crash takes away any more."""

    def __init__(
        self,
        loop: SimulatedLoop,
        rng: random.Random,
        trace: Trace,
        topics: Sequence[TopicSpec],
        on_synced: Callable[[str, bytes], None],
    ) -> None:
        self.loop = loop
        self.random = rng
        self.up = True
        self.loses = 0.0
        """Share of answers and acknowledgements that are lost."""
        self.sync_s = 0.003
        self.full = False
        self.busy_bytes = 0
        """Backfill that the services seem not to have worked on."""
        self.messages_max = 0
        """The most that ever waited."""
        self.on_synced = on_synced
        self._trace = trace
        self._topics = {spec.name: spec for spec in topics}
        self._messages: dict[int, Message] = {}
        self._acknowledged: list[tuple[float, Message, str]] = []
        """Lately, with their channel: a crash may forget it."""
        self._number = 0
        self._waiting: dict[tuple[str, str], deque[Message]] = {
            (spec.name, channel): deque() for spec in topics for channel in spec.channels
        }
        self._readers: dict[tuple[str, str], list[JetReader]] = {place: [] for place in self._waiting}
        self._in_flight: dict[asyncio.Future[None], None] = {}

    @property
    def empty(self) -> bool:
        return not self._messages

    async def stats(self) -> list[TopicStats]:
        """What waits where; `busy_bytes` more of it as backfill than there is."""
        if not self.up:
            raise BusError("NATS is not connected")
        return [
            TopicStats(
                topic=name,
                batches=1,
                bytes=self.busy_bytes,
                bytes_max=spec.bytes_max,
                channels=[ChannelStats(channel, Lane.BACKFILL, 1, 0) for channel in spec.channels],
            )
            for name, spec in self._topics.items()
        ]

    def publish(self, topic: str, lane: Lane, data: bytes, answer: asyncio.Future[None]) -> None:
        """Comes over the network."""
        self._in_flight[answer] = None
        answer.add_done_callback(lambda _: self._in_flight.pop(answer, None))
        self.loop.outside(0.0005 + 0.002 * self.random.random(), self._store, topic, lane, data, answer)

    def _store(self, topic: str, lane: Lane, data: bytes, answer: asyncio.Future[None]) -> None:
        if not self.up:
            return
        if self.full:
            self._answer(answer, BusFullError("JetStream: maximum bytes exceeded"))
            return
        self._number += 1
        message = Message(self._number, topic, lane, data, set(self._topics[topic].channels))
        self._messages[message.number] = message
        self.messages_max = max(self.messages_max, len(self._messages))
        self.loop.outside(self.sync_s * (0.5 + self.random.random()), self._sync, message, answer)

    def _sync(self, message: Message, answer: asyncio.Future[None]) -> None:
        if message.number not in self._messages:
            return
        message.synced = True
        self.on_synced(message.topic, message.data)
        for channel in self._topics[message.topic].channels:
            self._waiting[message.topic, channel].append(message)
            self.hand_out(message.topic, channel)
        if self.random.random() >= self.loses:
            self.loop.outside(0.0005, self._answer, answer, None)

    def _answer(self, answer: asyncio.Future[None], error: Exception | None) -> None:
        if answer.done() or not self.up:
            return
        if error is None:
            answer.set_result(None)
        else:
            answer.set_exception(error)

    def hand_out(self, topic: str, channel: str) -> None:
        """Gives what waits to readers with room, in turn."""
        if not self.up:
            return
        waiting, readers = self._waiting[topic, channel], self._readers[topic, channel]
        left: deque[Message] = deque()
        while waiting:
            message = waiting.popleft()
            if channel not in message.channels or message.number not in self._messages:
                continue
            reader = next((reader for reader in readers if reader.has_room(message.lane)), None)
            if reader is None:
                left.append(message)
                continue
            readers.remove(reader)
            readers.append(reader)
            message.deliveries += 1
            delivery = JetDelivery(reader, message)
            reader.taken(delivery)
            self.loop.outside(0.0005 + 0.001 * self.random.random(), reader.arrive, delivery)
            self.loop.outside(ACK_WAIT_S, self.expire, delivery)
        waiting.extend(left)

    def expire(self, delivery: JetDelivery) -> None:
        """Without an acknowledgement: given out again, unless its reader says that it works on it."""
        reader, message = delivery.reader, delivery.message
        if reader.channel not in message.channels or delivery.ended:
            return
        if reader.works_on(delivery):
            self.loop.outside(ACK_WAIT_S, self.expire, delivery)
            return
        self.give_back(delivery)

    def give_back(self, delivery: JetDelivery, delay_s: float = 0.0) -> None:
        delivery.ended = True
        reader = delivery.reader
        reader.gone(delivery)

        def again() -> None:
            self._waiting[delivery.message.topic, reader.channel].appendleft(delivery.message)
            self.hand_out(delivery.message.topic, reader.channel)

        self.loop.outside(delay_s, again)

    def acknowledge(self, delivery: JetDelivery) -> None:
        message, channel = delivery.message, delivery.reader.channel
        if not self.up or self.random.random() < self.loses:
            return
        delivery.ended = True
        message.channels.discard(channel)
        self._acknowledged.append((self.loop.now, message, channel))
        if not message.channels:
            self._messages.pop(message.number, None)
        self.hand_out(message.topic, channel)

    def subscribe(self, reader: JetReader) -> None:
        self._readers[reader.topic, reader.channel].append(reader)
        self.hand_out(reader.topic, reader.channel)

    def unsubscribe(self, reader: JetReader) -> None:
        """Its process is gone, or it closed: what it holds comes again, as it expires."""
        readers = self._readers[reader.topic, reader.channel]
        if reader in readers:
            readers.remove(reader)

    def crash(self) -> None:
        """Unsynced messages go, from some point on; synced ones stay. Late acknowledgements may be forgotten."""
        self.up = False
        unsynced = [message for message in self._messages.values() if not message.synced]
        kept = self.random.randrange(len(unsynced) + 1)
        for message in unsynced[kept:]:
            del self._messages[message.number]
        for message in unsynced[:kept]:
            message.synced = True
            self.on_synced(message.topic, message.data)
        for at_s, message, channel in self._acknowledged:
            if self.loop.now - at_s < 1.0 and self.random.random() < 0.5:
                message.channels.add(channel)
                self._messages[message.number] = message
        self._acknowledged.clear()
        self._trace.add("nats", "crash, unsynced lost", len(unsynced) - kept)
        for answer in list(self._in_flight):
            self.loop.outside(0.001, self._fail, answer)

    def _fail(self, answer: asyncio.Future[None]) -> None:
        if not answer.done():
            answer.set_exception(BusError("NATS went away before it answered"))

    def start(self) -> None:
        """Everything that is not acknowledged comes again."""
        self.up = True
        self._trace.add("nats", "up")
        for waiting in self._waiting.values():
            waiting.clear()
        for readers in self._readers.values():
            for reader in readers:
                reader.forget()
        for (topic, channel), waiting in self._waiting.items():
            waiting.extend(
                message for message in self._messages.values() if message.topic == topic and channel in message.channels
            )
            self.hand_out(topic, channel)


class JetBus:
    """One process's connection to it."""

    def __init__(self, nats: Nats) -> None:
        self._nats = nats

    async def publish(self, topic: str, data: bytes, *, key: BatchKey | None = None, lane: Lane = Lane.LIVE) -> None:
        nats = self._nats
        if not nats.up:
            raise BusError("NATS is not connected")
        answer: asyncio.Future[None] = nats.loop.create_future()
        nats.publish(topic, lane, data, answer)
        try:
            async with asyncio.timeout(PUBLISH_S):
                await answer
        except TimeoutError:
            raise BusError(f"JetStream did not answer within {PUBLISH_S:g} s") from None

    async def subscribe(self, topic: str, channel: str, *, ephemeral: bool = False, lane: Lane | None = None) -> Reader:
        while not self._nats.up:
            await asyncio.sleep(0.25)
        process = PROCESS.get()
        assert process is not None
        reader = JetReader(self._nats, process, topic, channel, lane)
        self._nats.subscribe(reader)
        return reader

    async def close(self) -> None:
        """Readers are closed by who made them."""


class JetDelivery:
    """The Delivery of contract.py."""

    def __init__(self, reader: JetReader, message: Message) -> None:
        self.reader = reader
        self.message = message
        self.data = message.data
        self.lane = message.lane
        self.key: BatchKey | None = None
        self.redelivered = message.deliveries > 1
        self.ended = False
        """The server does not wait for its answer any more."""

    async def ack(self) -> None:
        if self.reader.gone(self):
            nats = self.reader.nats
            nats.loop.outside(0.0005, nats.acknowledge, self)

    async def nak(self, delay_s: float = 0.0) -> None:
        if self.reader.gone(self):
            self.reader.nats.give_back(self, delay_s)

    async def refuse(self, code: str, detail: str) -> None:
        await self.ack()


class JetReader:
    """The Reader of contract.py."""

    missed = 0

    def __init__(self, nats: Nats, process: Process, topic: str, channel: str, lane: Lane | None) -> None:
        self.nats = nats
        self.topic = topic
        self.channel = channel
        self._process = process
        self._lane = lane
        self._queue: LaneQueue[JetDelivery] = LaneQueue()
        self._unanswered: dict[JetDelivery, None] = {}
        self._pulled = dict.fromkeys(Lane, 0)
        self._arrived = asyncio.Event()
        self._closed = False

    async def fetch(self, batches_max: int, bytes_max: int) -> Sequence[JetDelivery]:
        while not self._queue:
            if self._closed:
                raise BusError("the reader is closed")
            self._arrived.clear()
            await self._arrived.wait()
        taken = self._queue.take(batches_max, bytes_max)
        self._pulled[taken[0].lane] -= len(taken)
        self.nats.loop.outside(0.0005, self.nats.hand_out, self.topic, self.channel)
        return taken

    async def close(self) -> None:
        self._closed = True
        self._arrived.set()
        self.nats.unsubscribe(self)
        for delivery in list(self._unanswered):
            self.nats.give_back(delivery)

    def has_room(self, lane: Lane) -> bool:
        mine = self._lane is None or self._lane is lane
        return mine and self._process.alive and not self._closed and self._pulled[lane] < PULL_BATCHES

    def taken(self, delivery: JetDelivery) -> None:
        self._pulled[delivery.lane] += 1
        self._unanswered[delivery] = None

    def arrive(self, delivery: JetDelivery) -> None:
        if delivery in self._unanswered and not delivery.ended:
            self._queue.push(delivery)
            self._arrived.set()

    def works_on(self, delivery: JetDelivery) -> bool:
        return self._process.alive and not self._process.stopped and delivery in self._unanswered

    def gone(self, delivery: JetDelivery) -> bool:
        """True the first time: a delivery is answered once."""
        if delivery in self._unanswered:
            del self._unanswered[delivery]
            return True
        return False

    def forget(self) -> None:
        """The server is new: what it gave out before, it gives out again. What is in work may be answered in vain."""
        for delivery in list(self._unanswered):
            delivery.ended = True
        self._unanswered.clear()
        self._queue.drain()
        self._pulled = dict.fromkeys(Lane, 0)
