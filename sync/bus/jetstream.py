"""The cloud's bus on NATS JetStream: the DurableBus of contract.py, where *safe to forget* means synced by the server.

That the server syncs each message is its own setting: `jetstream { sync_interval: always }`. It then answers some
thousand publishes a second, however many are on their way: callers coalesce.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from protocols.batch import BatchKey
from protocols.errors import UNREADABLE
from protocols.limits import NATS_PAYLOAD_BYTES_MAX
from protocols.messages import Lane
from sync.bus.contract import BusError, BusFullError, BusRefusedError, Reader, TopicSpec
from sync.bus.jetstream_reader import KEY_HEADER, JetStreamReader, key_header
from sync.bus.jetstream_streams import ACK_WAIT_S, TopicStats, ensure_topics, subject, topic_stats
from sync.bus.jetstream_tail import TailReader
from tidegate.logs import get_logger

CONNECT_S: Final = 10.0
"""For reaching a server at the start; a supervisor or a person decides what then."""

READY_S: Final = 30.0
"""For a topic's stream and consumers to exist: JetStream reads its store after a crash first."""

PUBLISH_S: Final = 10.0
"""A publish's deadline: some thousand times a sync, and less than a gateway waits for its answer."""

API_S: Final = 5.0
"""A question to JetStream's API."""

IN_FLIGHT_MAX: Final = 512
"""Publishes of one process without an answer: more than the server syncs in a tenth of a second."""

IN_FLIGHT_BYTES_MAX: Final = 64 * 1024 * 1024
"""The same in bytes: what waits in memory and in the socket when the server is slow."""

RECONNECT_S: Final = 0.25
"""Between attempts to reach the server again; there is no last one."""

PING_S: Final = 5
"""A server that hangs is noticed after three of them (`max_outstanding_pings` is 2)."""

_STORE_FULL: Final = frozenset({10023, 10047, 10077, 10122})
"""JetStream's error codes: out of memory, out of disk, a stream's limit, too much in flight."""

_TOO_LARGE: Final = 10054
"""JetStream's error code for a message above the stream's own bound."""

logger = get_logger("sync.bus")


class _ApiError(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _PubAck(msgspec.Struct):
    """JetStream's answer to a publish; `seq` and the rest are of no interest here."""

    error: _ApiError | None = None


_answer_decoder: Final = msgspec.json.Decoder(_PubAck)


class JetStreamBus:
    """One connection of a process. Use JetStreamBus.connect."""

    def __init__(self, topics: Sequence[TopicSpec], *, ack_wait_s: float, publish_s: float) -> None:
        self._topics = {spec.name: spec for spec in topics}
        self._ack_wait_s = ack_wait_s
        self._publish_s = publish_s
        self._client = Client()
        self._readers: set[JetStreamReader | TailReader] = set()
        self._in_flight: dict[str, asyncio.Future[None]] = {}
        self._in_flight_bytes = 0
        self._ticket = 0
        self._inbox = ""
        self._closed = False
        self._reason: Exception | None = None

    @classmethod
    async def connect(
        cls,
        url: str,
        topics: Sequence[TopicSpec],
        *,
        name: str = "tidegate",
        ack_wait_s: float = ACK_WAIT_S,
        publish_s: float = PUBLISH_S,
        connect_s: float = CONNECT_S,
    ) -> JetStreamBus:
        """Connected, with every stream and consumer of `topics` in place. `url`: one or several, by commas. Raises
        BusError if the server is not reached within `connect_s`, has no JetStream, or takes too small messages."""
        bus = cls(topics, ack_wait_s=ack_wait_s, publish_s=publish_s)
        try:
            await bus._open(url, name, connect_s)
        except BaseException:  # also when the caller is cancelled: nothing may go on trying to connect
            await bus.close()
            raise
        return bus

    async def publish(self, topic: str, data: bytes, *, key: BatchKey | None = None, lane: Lane = Lane.LIVE) -> None:
        if topic not in self._topics:
            raise BusRefusedError("unknown-topic", f"there is no topic {topic}")
        if not self._client.is_connected:
            raise BusError("NATS is not connected")
        if len(self._in_flight) >= IN_FLIGHT_MAX or self._in_flight_bytes + len(data) > IN_FLIGHT_BYTES_MAX:
            raise BusFullError(f"{len(self._in_flight)} publishes wait for JetStream")
        self._ticket += 1
        ticket = str(self._ticket)
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._in_flight[ticket] = answer
        self._in_flight_bytes += len(data)
        headers = None if key is None else {KEY_HEADER: key_header(key)}
        try:
            async with asyncio.timeout(self._publish_s):
                reply = f"{self._inbox}.{ticket}"
                await self._client.publish(subject(topic, lane), data, reply=reply, headers=headers)
                await answer
        except TimeoutError:
            raise BusError(f"JetStream did not answer within {self._publish_s:g} s") from None
        except nats.errors.MaxPayloadError:
            raise BusRefusedError("limit", f"batch of {len(data):,} bytes is more than NATS takes") from None
        except nats.errors.Error as error:
            raise BusError(f"NATS is not there: {error}") from None
        finally:
            del self._in_flight[ticket]
            self._in_flight_bytes -= len(data)

    async def subscribe(self, topic: str, channel: str, *, ephemeral: bool = False, lane: Lane | None = None) -> Reader:
        spec = self._topics.get(topic)
        if spec is None:
            raise BusRefusedError("unknown-topic", f"there is no topic {topic}")
        if ephemeral is (channel in spec.channels):
            kind = "durable" if ephemeral else "no durable"
            raise BusRefusedError("conflict", f"{channel} is {kind} channel of {topic}")
        reader: JetStreamReader | TailReader
        if ephemeral:
            reader = TailReader(self, self._client, topic)
        else:
            lanes = tuple(Lane) if lane is None else (lane,)
            reader = JetStreamReader(self, self._client, topic, channel, lanes, self._ack_wait_s)
        try:
            await reader.open()
        except nats.errors.Error as error:
            raise BusError(f"NATS is not there: {error}") from None
        self._readers.add(reader)
        return reader

    async def stats(self) -> list[TopicStats]:
        """What waits where, one element a topic; for people and metrics, not for each batch. Raises BusError."""
        return await topic_stats(self._client.jetstream(timeout=API_S), self._topics.values())

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for reader in list(self._readers):
            await reader.close()
        if self._client.options:  # nats-py cannot close what never had a server to connect to
            await self._client.close()
        self._fail_all("the bus was closed before the answer came")

    def forget(self, reader: JetStreamReader | TailReader) -> None:
        """For readers: one that is closed."""
        self._readers.discard(reader)

    async def _open(self, url: str, name: str, connect_s: float) -> None:
        servers = [server for server in url.replace(" ", "").split(",") if server]
        if not servers:  # nats-py would look for one for ever, without a pause
            raise BusError("the URL of NATS is empty")
        options: dict[str, Any] = {
            "servers": servers,
            "name": name,
            "error_cb": self._on_error,
            "disconnected_cb": self._on_disconnected,
            "reconnected_cb": self._on_reconnected,
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": RECONNECT_S,
            "ping_interval": PING_S,
            "pending_size": -1,  # nothing is kept for later while there is no connection: the caller is told
        }
        try:
            async with asyncio.timeout(connect_s):
                await self._client.connect(**options)
        except TimeoutError:
            raise BusError(f"NATS is not reached at {url} within {connect_s:g} s: {self._reason}") from None
        except (nats.errors.Error, ValueError) as error:
            raise BusError(f"NATS at {url}: {error}") from None
        if self._client.max_payload < NATS_PAYLOAD_BYTES_MAX:
            raise BusError(
                f"NATS at {url} takes messages of {self._client.max_payload:,} bytes; "
                f"set max_payload to {NATS_PAYLOAD_BYTES_MAX}"
            )
        js = self._client.jetstream(timeout=API_S)
        await ensure_topics(js, self._topics.values(), ack_wait_s=self._ack_wait_s, deadline_s=READY_S)
        self._inbox = self._client.new_inbox()
        await self._client.subscribe(f"{self._inbox}.*", cb=self._on_answer)

    async def _on_answer(self, message: Msg) -> None:
        answer = self._in_flight.get(message.subject.rpartition(".")[2])
        if answer is None or answer.done():
            return
        if message.headers and message.headers.get("Status") == "503":
            answer.set_exception(BusError("JetStream is not there yet"))
            return
        try:
            error = _answer_decoder.decode(message.data).error
        except UNREADABLE as failure:
            answer.set_exception(BusError(f"JetStream's answer cannot be read: {failure}"))
            return
        if error is None:
            answer.set_result(None)
        elif error.err_code == _TOO_LARGE:
            answer.set_exception(BusRefusedError("limit", error.description))
        else:
            kind = BusFullError if error.err_code in _STORE_FULL else BusError
            answer.set_exception(kind(f"JetStream: {error.description}"))

    async def _on_error(self, error: Exception) -> None:
        """nats-py tells of each failed attempt; that the connection is lost was said once."""
        self._reason = error
        logger.debug("nats error", reason=str(error))

    async def _on_disconnected(self) -> None:
        if not self._closed:
            logger.warning("nats lost", reason=str(self._reason))
        self._fail_all("NATS went away before it answered")

    async def _on_reconnected(self) -> None:
        logger.info("nats is back")
        for reader in list(self._readers):
            await reader.on_reconnected()

    def _fail_all(self, reason: str) -> None:
        for answer in self._in_flight.values():
            if not answer.done():
                answer.set_exception(BusError(reason))
