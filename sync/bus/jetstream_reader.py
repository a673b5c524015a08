"""A reader of a durable channel in JetStream. A pull is open for each lane at any time: nothing waits for a fetch."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from protocols.batch import BatchKey
from protocols.limits import NATS_PAYLOAD_BYTES_MAX
from protocols.messages import Lane
from sync.bus.contract import BusError
from sync.bus.jetstream_streams import consumer
from sync.bus.lanes import LaneQueue

if TYPE_CHECKING:
    from sync.bus.jetstream import JetStreamBus

PULL_BATCHES: Final = 64
"""Batches asked for at once, in each lane: one request in 64 messages, and what one process may take from another."""

PULL_BYTES: Final = NATS_PAYLOAD_BYTES_MAX + 64 * 1024
"""The same in bytes: the largest message and its headers must fit, or the server would never send it."""

PULL_S: Final = 30.0
"""How long a pull stays open; the next one follows at once."""

HEARTBEAT_S: Final = 5.0
"""The server says that an open pull is still open."""

SILENT_S: Final = 12.0
"""Two heartbeats missed: the server has forgotten the pull (it moved to another node, say); pull again."""

REFUSED_PULL_S: Final = 0.25
"""Before the next attempt when the server did not take a pull: JetStream is starting, or a leader is being chosen."""

WORKS_PER_WAIT: Final = 3
"""How often in an ack_wait the server is told that a batch is being worked on: two may be lost."""

CLOSE_S: Final = 5.0
"""For giving back what was not answered; what does not get through comes again after ack_wait."""

KEY_HEADER: Final = "Nats-Msg-Id"
"""The batch's key, `<run>-<counter>` in hex; JetStream keeps one message for each within its window."""

_STATUS: Final = "Status"
_DESCRIPTION: Final = "Description"
_HEARTBEAT: Final = "100"
_EXPIRED: Final = "408"
_DONE: Final = frozenset({"Message Size Exceeds MaxBytes", "Batch Completed"})
"""Descriptions of a pull that ended because it got what it asked for."""
_ACK, _NAK, _TERM, _WORKING = b"+ACK", b"-NAK", b"+TERM", b"+WPI"


class JetStreamDelivery:
    """The Delivery of contract.py."""

    __slots__ = ("_reader", "_reply", "data", "key", "lane", "redelivered", "told_at")

    def __init__(self, reader: JetStreamReader, message: Msg, now: float) -> None:
        self._reader = reader
        self._reply: str = message.reply
        self.data: bytes = message.data
        self.lane = lane_of(message.subject)
        self.key = key_of(message)
        self.redelivered = _deliveries(message.reply) > 1
        self.told_at = now
        """When the server last heard that it is in good hands (seconds, the loop's clock)."""

    async def ack(self) -> None:
        await self._answer(_ACK)

    async def nak(self, delay_s: float = 0.0) -> None:
        await self._answer(_NAK if delay_s <= 0 else _NAK + b' {"delay": %d}' % int(delay_s * 1e9))

    async def refuse(self, code: str, detail: str) -> None:
        """JetStream's publishers had their answer when the batch was stored; the reader writes the dead letter."""
        await self._answer(_TERM + f" {code}: {detail}".encode())

    async def works(self, now: float) -> None:
        """Tells the server to wait on."""
        self.told_at = now
        await self._reader.send(self._reply, _WORKING)

    async def _answer(self, word: bytes) -> None:
        if self._reader.forget(self):
            await self._reader.send(self._reply, word)


class JetStreamReader:
    """The Reader of contract.py, on a channel's two consumers or one of them."""

    def __init__(
        self,
        bus: JetStreamBus,
        client: Client,
        topic: str,
        channel: str,
        lanes: Sequence[Lane],
        ack_wait_s: float,
    ) -> None:
        self._bus = bus
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._ack_wait_s = ack_wait_s
        self._inbox: str = client.new_inbox()
        self._queue: LaneQueue[JetStreamDelivery] = LaneQueue()
        self._unanswered: set[JetStreamDelivery] = set()
        self._arrival = asyncio.Event()
        self._room = asyncio.Event()
        self._closed = False
        self._pulls = {lane: _Pull(f"$JS.API.CONSUMER.MSG.NEXT.{topic}.{consumer(channel, lane)}") for lane in lanes}

    @property
    def missed(self) -> int:
        return 0

    async def open(self) -> None:
        """Called once, by the bus."""
        self._subscription = await self._client.subscribe(f"{self._inbox}.*.*", cb=self._on_message)
        await self._pull_more()
        self._keeper = self._loop.create_task(self._keep())

    async def fetch(self, batches_max: int, bytes_max: int) -> list[JetStreamDelivery]:
        while not self._queue:
            if self._closed:
                raise BusError("the reader is closed")
            self._arrival.clear()
            await self._arrival.wait()
        taken = self._queue.take(batches_max, bytes_max)
        self._room.set()  # not awaited here: a caller that is cancelled would lose what was taken
        return taken

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._arrival.set()
        self._keeper.cancel()
        self._bus.forget(self)
        try:
            # Ends the pulls; what was on its way when they ended still arrives, and is given back by _on_message.
            async with asyncio.timeout(CLOSE_S):
                if self._client.is_connected:
                    await self._subscription.drain()  # type: ignore[no-untyped-call]
        except (TimeoutError, nats.errors.Error):
            pass  # the connection went away: the server gives the batches to others by itself
        self._queue.drain()
        for delivery in list(self._unanswered):
            await delivery.nak()

    async def on_reconnected(self) -> None:
        """The server has forgotten the pulls, and may have restarted."""
        for pull in self._pulls.values():
            pull.ends()
        await self._pull_more()

    def forget(self, delivery: JetStreamDelivery) -> bool:
        """True the first time: a delivery is answered once."""
        if delivery not in self._unanswered:
            return False
        self._unanswered.remove(delivery)
        return True

    async def send(self, subject: str, word: bytes, reply: str = "") -> bool:
        """False if there is no connection. Answers may be lost: the batch comes again."""
        try:
            await self._client.publish(subject, word, reply=reply)
        except (nats.errors.OutboundBufferLimitError, nats.errors.ConnectionClosedError):
            return False
        return True

    async def _on_message(self, message: Msg) -> None:
        now = self._loop.time()
        if message.headers and _STATUS in message.headers and message.subject.startswith(self._inbox):
            await self._on_status(message, now)
            return
        delivery = JetStreamDelivery(self, message, now)
        self._unanswered.add(delivery)
        if self._closed:
            await delivery.nak()
            return
        self._pulls[delivery.lane].delivered(now)
        self._queue.push(delivery)
        self._arrival.set()
        await self._pull_more()

    async def _on_status(self, message: Msg, now: float) -> None:
        """The end of a pull, or a sign that it is still open."""
        lane, number = message.subject[len(self._inbox) + 1 :].split(".")
        pull = self._pulls[Lane(lane)]
        if int(number) != pull.number:
            return  # of a pull that was given up before
        headers = message.headers or {}
        if headers[_STATUS] == _HEARTBEAT:
            pull.heard_at = now
            return
        if headers[_STATUS] != _EXPIRED and headers.get(_DESCRIPTION) not in _DONE:
            await asyncio.sleep(REFUSED_PULL_S)
        pull.ends()
        await self._pull_more()

    async def _pull_more(self) -> None:
        """Opens a pull in each lane that has none and has room for it."""
        if self._closed:
            return
        for lane, pull in self._pulls.items():
            room = self._queue.batches(lane) < PULL_BATCHES and self._queue.bytes(lane) < PULL_BYTES
            if pull.remaining or not room:
                continue
            pull.opens(self._loop.time())
            if not await self.send(pull.subject, _PULL_REQUEST, reply=f"{self._inbox}.{lane.value}.{pull.number}"):
                pull.ends()

    async def _keep(self) -> None:
        """Pulls when there is room again. While batches are worked on, says so; gives up pulls that are forgotten."""
        interval = min(self._ack_wait_s / WORKS_PER_WAIT, HEARTBEAT_S)
        due = self._loop.time() + interval
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._room.wait()
            self._room.clear()
            await self._pull_more()
            now = self._loop.time()
            if now < due:
                continue
            due = now + interval
            for delivery in [held for held in self._unanswered if now - held.told_at >= interval / 2]:
                await delivery.works(now)
            for pull in self._pulls.values():
                if pull.remaining and now - pull.heard_at > SILENT_S:
                    pull.ends()
                    self._room.set()


class _Pull:
    """What was asked of one consumer."""

    __slots__ = ("heard_at", "number", "remaining", "subject")

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.number = 0
        self.remaining = 0
        self.heard_at = 0.0

    def opens(self, now: float) -> None:
        self.number += 1
        self.remaining = PULL_BATCHES
        self.heard_at = now

    def delivered(self, now: float) -> None:
        self.remaining = max(0, self.remaining - 1)
        self.heard_at = now

    def ends(self) -> None:
        self.remaining = 0


_PULL_REQUEST: Final = msgspec.json.encode(
    {
        "batch": PULL_BATCHES,
        "max_bytes": PULL_BYTES,
        "expires": int(PULL_S * 1e9),
        "idle_heartbeat": int(HEARTBEAT_S * 1e9),
    }
)


def key_header(key: BatchKey) -> str:
    return f"{key.run:x}-{key.counter:x}"


def key_of(message: Msg) -> BatchKey | None:
    """The key that key_header wrote; None if there is none, or another writer's."""
    text = (message.headers or {}).get(KEY_HEADER)
    if text is None:
        return None
    run, _, counter = text.partition("-")
    try:
        return BatchKey(int(run, 16), int(counter, 16))
    except ValueError:
        return None


def lane_of(subject: str) -> Lane:
    return Lane.BACKFILL if subject.endswith(".backfill") else Lane.LIVE


def _deliveries(reply: str) -> int:
    """From `$JS.ACK.<stream>.<consumer>.<delivered>.…`, or the newer form with domain and account before the stream."""
    tokens = reply.split(".")
    return int(tokens[4] if len(tokens) == 9 else tokens[6])
