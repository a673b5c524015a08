"""The client of the edge bus over ZeroMQ, for the gateway's own parts and for other processes in Python.

Both speak the frames of frames.py, which any language can; see docs/PROTOCOL.md.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

import zmq

from protocols.batch import BatchKey
from protocols.errors import WireError
from protocols.messages import Lane
from sync.bus.contract import BusError, BusFullError, BusRefusedError
from sync.bus.frames import (
    BATCH_BYTES_MAX,
    FULL,
    LIMIT,
    TAGS_MAX,
    Accepted,
    Ack,
    ClientFrame,
    Deliver,
    Error,
    Failed,
    Gap,
    Hello,
    Nak,
    Publish,
    Refuse,
    Refused,
    Subscribe,
    Subscribed,
    Unsubscribe,
    Unsubscribed,
    Welcome,
    decode_hub_frame,
    encode_frame,
)
from sync.bus.polled import PolledSocket
from tidegate.logs import get_logger

PUBLISH_S: Final = 10.0
"""A publish's deadline: many syncs of a slow disk, and less than a device waits before it sends again."""

ANSWER_GRACE_S: Final = 1.0
"""After the deadline, time for the hub's own word on why, before the client gives up by itself."""

SUBSCRIBE_S: Final = 10.0
"""How long a hub may take to answer `subscribe`: a gateway that is starting up is waited for."""

BEAT_S: Final = 0.5
"""The longest time between two `hello`; deadlines are looked at as often."""

UNANSWERED_MAX: Final = 1024
"""Publishes of one client without an answer. Callers wait for each; more than this is a leak, not a load."""

UNANSWERED_BYTES_MAX: Final = 64 * 1024 * 1024
"""The same in bytes: what a client holds for sending again."""

READER_BATCHES_MAX: Final = 256
"""The window of a reader: enough for one group commit while the next one fills."""

READER_BYTES_MAX: Final = 8 * 1024 * 1024
"""The same in bytes."""

CLIENT_QUEUE_MAX: Final = 4 * UNANSWERED_MAX
"""Messages in a socket: more than a client ever has on its way, so that a full one means that nobody is there."""

FRAME_BYTES_MAX: Final = 2 * BATCH_BYTES_MAX
"""Larger message parts end the connection before they are read into memory; up to here, the hub says what is wrong."""

LINGER_MS: Final = 500
"""For last words at closing; more would hold up a shutdown for a peer that is gone."""

logger = get_logger("sync.bus")


class ZeroMqBus:
    """A client of a hub: the Bus of contract.py. Outlives the hub's restarts: what is unanswered is sent again."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        *,
        grant: bytes = b"",
        publish_s: float = PUBLISH_S,
        owns_context: bool = False,
    ) -> None:
        """Use ZeroMqHub.connect in the gateway's process and ZeroMqBus.connect in others."""
        self._loop = asyncio.get_running_loop()
        self._context = context
        self._owns_context = owns_context
        self._hello = encode_frame(Hello(grant))
        self._publish_s = publish_s
        self._publish_ms = int(publish_s * 1000)
        self._beat_s = BEAT_S
        self._closed = False
        self._session = 0
        """0: not known to the hub, as far as this side knows. Nothing but `hello` is sent then."""
        self._ticket = 0
        self._unanswered: dict[int, _Publish] = {}
        self._unanswered_bytes = 0
        self._readers: dict[int, ZeroMqReader] = {}
        self._reader_number = 0
        self._acks: dict[int, list[int]] = {}
        socket = context.socket(zmq.DEALER)
        # Only to a hub that is there: what waits for a connection would arrive long after its deadline.
        socket.setsockopt(zmq.IMMEDIATE, 1)
        socket.setsockopt(zmq.SNDHWM, CLIENT_QUEUE_MAX)
        socket.setsockopt(zmq.MAXMSGSIZE, FRAME_BYTES_MAX)
        socket.connect(endpoint)
        self._socket = PolledSocket(socket, self._on_messages, self._say_hello)
        self._timer = self._loop.call_soon(self._beat)

    @classmethod
    def connect(cls, endpoint: str, *, publish_s: float = PUBLISH_S) -> ZeroMqBus:
        """From another process. Returns at once; the hub need not be there yet."""
        return cls(zmq.Context(), endpoint, publish_s=publish_s, owns_context=True)

    async def publish(self, topic: str, data: bytes, *, key: BatchKey | None = None, lane: Lane = Lane.LIVE) -> None:
        if self._closed:
            raise BusError("the bus is closed")
        if len(data) > BATCH_BYTES_MAX:
            raise BusRefusedError(LIMIT, f"batch of {len(data):,} bytes; the limit is {BATCH_BYTES_MAX:,}")
        if len(self._unanswered) >= UNANSWERED_MAX or self._unanswered_bytes + len(data) > UNANSWERED_BYTES_MAX:
            raise BusFullError(f"{len(self._unanswered)} publishes wait for their answers")
        self._ticket += 1
        ticket = self._ticket
        publish = _Publish(
            encode_frame(Publish(ticket, topic, lane, key, self._publish_ms)),
            data,
            self._loop.create_future(),
            self._loop.time() + self._publish_s + ANSWER_GRACE_S,
        )
        self._unanswered[ticket] = publish
        self._unanswered_bytes += len(data)
        if self._session:
            self._send([publish.head, data])
        try:
            await publish.answer
        finally:
            del self._unanswered[ticket]
            self._unanswered_bytes -= len(data)

    async def subscribe(self, topic: str, channel: str, *, ephemeral: bool = False) -> ZeroMqReader:
        if self._closed:
            raise BusError("the bus is closed")
        self._reader_number += 1
        number = self._reader_number
        request = Subscribe(number, topic, channel, ephemeral, READER_BATCHES_MAX, READER_BYTES_MAX)
        reader = ZeroMqReader(self, request)
        self._readers[number] = reader
        if self._session:
            self.send(request)
        try:
            async with asyncio.timeout(SUBSCRIBE_S):
                await reader.subscribed.wait()
            reader.check()
        except TimeoutError:
            await reader.close()
            raise BusError(f"the hub did not answer within {SUBSCRIBE_S:g} s") from None
        except BaseException:  # also a cancelled caller must not leave a reader that nobody reads
            await reader.close()
            raise
        return reader

    async def close(self) -> None:
        if self._closed:
            return
        for reader in list(self._readers.values()):
            await reader.close()
        self._closed = True
        self._timer.cancel()
        for publish in self._unanswered.values():
            publish.fail(BusError("the bus was closed before the answer came"))
        self._socket.close(LINGER_MS)
        if self._owns_context:
            await asyncio.to_thread(self._context.term)

    def send(self, frame: ClientFrame) -> None:
        """For readers. Not sent while the hub does not know this client: it would mean nothing to it."""
        if self._session:
            self._send([encode_frame(frame)])

    def ack(self, reader: int, tag: int) -> None:
        """For readers: acknowledgements of one turn of the loop travel in one frame."""
        if not self._acks:
            self._loop.call_soon(self._flush_acks)
        self._acks.setdefault(reader, []).append(tag)

    def forget(self, reader: int) -> None:
        """For readers: the last word of one."""
        self._flush_acks()
        if self._readers.pop(reader, None) is not None:
            self.send(Unsubscribe(reader))

    @property
    def session(self) -> int:
        """For readers: deliveries of another session than this are nobody's business any more."""
        return self._session

    def _send(self, parts: list[bytes]) -> None:
        if not self._socket.send(parts):
            self._session = 0

    def _flush_acks(self) -> None:
        acks, self._acks = self._acks, {}
        for reader, tags in acks.items():
            for start in range(0, len(tags), TAGS_MAX):
                self.send(Ack(reader, tags[start : start + TAGS_MAX]))

    def _say_hello(self) -> None:
        self._send([self._hello])

    def _beat(self) -> None:
        self._say_hello()
        now = self._loop.time()
        for publish in self._unanswered.values():
            if publish.deadline > now:
                break  # they have one deadline after the other, in the order of publishing
            publish.fail(BusError(f"no answer of the hub within {self._publish_s:g} s"))
        self._timer = self._loop.call_later(self._beat_s, self._beat)

    def _on_messages(self, messages: list[list[bytes]]) -> None:
        for parts in messages:
            try:
                frame, data = decode_hub_frame(parts)
            except WireError as error:
                logger.warning("frame of the hub passed over", reason=error.detail)
                continue
            match frame:
                case Deliver():
                    reader = self._readers.get(frame.reader)
                    if reader is not None:
                        reader.on_delivery(frame, data)
                case Accepted():
                    for ticket in frame.tickets:
                        self._answered(ticket, None)
                case Failed():
                    kind = BusFullError if frame.code == FULL else BusError
                    self._answered(frame.ticket, kind(frame.detail))
                case Refused():
                    self._answered(frame.ticket, BusRefusedError(frame.code, frame.detail))
                case Welcome():
                    self._on_welcome(frame)
                case Error():
                    logger.warning("the hub does not understand", code=frame.code, reason=frame.detail)
                case Subscribed() | Unsubscribed() | Gap():
                    reader = self._readers.get(frame.reader)
                    if reader is not None:
                        reader.on_word(frame)

    def _answered(self, ticket: int, error: Exception | None) -> None:
        publish = self._unanswered.get(ticket)
        if publish is None:
            return
        if error is not None:
            publish.fail(error)
        elif not publish.answer.done():
            publish.answer.set_result(None)

    def _on_welcome(self, frame: Welcome) -> None:
        self._beat_s = min(BEAT_S, frame.heartbeat_ms / 1000)
        if frame.session == self._session:
            return
        self._session = frame.session
        for reader in self._readers.values():
            reader.on_session()
            self.send(reader.request)
        for publish in list(self._unanswered.values()):
            if not publish.answer.done():
                self._send([publish.head, publish.data])


class _Publish:
    """A publish without an answer, ready to be sent again."""

    __slots__ = ("answer", "data", "deadline", "head")

    def __init__(self, head: bytes, data: bytes, answer: asyncio.Future[None], deadline: float) -> None:
        self.head = head
        self.data = data
        self.answer = answer
        self.deadline = deadline

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class ZeroMqDelivery:
    """The Delivery of contract.py."""

    __slots__ = ("_bus", "_reader", "_session", "_tag", "data", "key", "lane", "redelivered")

    def __init__(self, bus: ZeroMqBus, frame: Deliver, data: bytes) -> None:
        self._bus = bus
        self._session = bus.session
        self._reader = frame.reader
        self._tag = frame.tag
        self.data = data
        self.lane = frame.lane
        self.key = frame.key
        self.redelivered = frame.redelivered

    async def ack(self) -> None:
        if self._session == self._bus.session:
            self._bus.ack(self._reader, self._tag)

    async def nak(self, delay_s: float = 0.0) -> None:
        if self._session == self._bus.session:
            self._bus.send(Nak(self._reader, self._tag, int(delay_s * 1000)))

    async def refuse(self, code: str, detail: str) -> None:
        if self._session == self._bus.session:
            self._bus.send(Refuse(self._reader, self._tag, code, detail))


class ZeroMqReader:
    """The Reader of contract.py. What it buffers is bounded by its window, which the hub keeps."""

    def __init__(self, bus: ZeroMqBus, request: Subscribe) -> None:
        self.request = request
        self.subscribed = asyncio.Event()
        """Set once the hub has answered, well or not."""
        self._bus = bus
        self._buffer: deque[ZeroMqDelivery] = deque()
        self._arrival = asyncio.Event()
        self._missed = 0
        self._error: Exception | None = None

    @property
    def missed(self) -> int:
        return self._missed

    async def fetch(self, batches_max: int, bytes_max: int) -> list[ZeroMqDelivery]:
        buffer = self._buffer
        while not buffer:
            self.check()
            self._arrival.clear()
            await self._arrival.wait()
        first = buffer.popleft()
        taken = [first]
        size = len(first.data)
        while buffer and len(taken) < batches_max and buffer[0].lane is first.lane:
            size += len(buffer[0].data)
            if size > bytes_max:
                break
            taken.append(buffer.popleft())
        return taken

    async def close(self) -> None:
        if self._error is None:
            self._end(BusError("the reader is closed"))
        self._bus.forget(self.request.reader)

    def check(self) -> None:
        """Raises why this reader reads no more, if it does not."""
        if self._error is not None:
            raise self._error

    def on_delivery(self, frame: Deliver, data: bytes) -> None:
        self._buffer.append(ZeroMqDelivery(self._bus, frame, data))
        self._arrival.set()

    def on_word(self, frame: Subscribed | Unsubscribed | Gap) -> None:
        match frame:
            case Subscribed():
                self.subscribed.set()
            case Gap():
                self._missed += frame.missed
            case Unsubscribed():
                self._end(BusRefusedError(frame.code, frame.detail))

    def on_session(self) -> None:
        """The hub knows nothing of what it delivered before: it will deliver it again."""
        self._buffer.clear()

    def _end(self, error: Exception) -> None:
        self._error = error
        self._buffer.clear()
        self.subscribed.set()
        self._arrival.set()
