"""The CoAP listener: one UDP port, one network.

The message layer is Tidegate's own (`protocols/coap/`), with a bound on all that it remembers; OSCORE is by aiocoap.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge.credentials import Credentials, RefusalCode
from edge.listeners.coap import answers
from edge.listeners.coap.answers import Answer
from edge.listeners.coap.config import CoapConfig
from edge.listeners.coap.confirmables import Confirmables
from edge.listeners.coap.datagrams import Datagrams, Peer
from edge.listeners.coap.exchanges import Exchanges
from edge.listeners.coap.limits import (
    ANSWER_BYTES_MAX,
    DRAIN_S,
    EXCHANGE_S,
    TICK_S,
    WAITING_MAX,
    WAITING_PER_SOURCE_MAX,
)
from edge.listeners.coap.observers import CoapWay, Observers
from edge.listeners.coap.requests import Request
from edge.listeners.coap.service import Service
from edge.listeners.coap.sources import Source, Sources
from edge.listeners.filling import Owed
from edge.listeners.listener import ListenerCounters, Shared
from edge.listeners.refusals import DATA_BYTES_MAX, Refusals, Refused
from edge.listeners.sockets import address, cannot_listen
from protocols.coap.message import (
    HEAD_BYTES,
    TOKEN_BYTES_MAX,
    BadOptionError,
    Message,
    check_options,
    decode,
    empty,
    peek,
)
from protocols.coap.numbers import Kind, Option
from protocols.errors import MalformedError
from protocols.messages import Origin
from tidegate.console import UserError

if TYPE_CHECKING:
    from edge.listeners.coap.oscore import Contexts

TOKEN_BYTES: Final = 8
"""Of what the collector gives back for a record."""

REQUEST_CODES: Final = range(1, 32)

_LOGINS: Final = frozenset(RefusalCode) | {answers.OTHER_DEVICE.refusal, *answers.OSCORE_REFUSALS}


class CoapListener:
    """Devices' messages of one network, into the collector. Answers are acknowledgements, and leave when the record is
    on disk; a message that comes again meanwhile is passed over. There is no empty acknowledgement before: a device
    might take it for the promise."""

    kind = "coap"
    trouble = ""

    def __init__(self, config: CoapConfig, shared: Shared) -> None:
        registry, collector = shared.registry, shared.collector
        self.name = config.name
        self.network_id = config.network
        self.port = config.port
        self.is_listening = False
        self.refusals = Refusals(config.name)
        self._counters = ListenerCounters()
        self._config = config
        self._collector = collector
        self._credentials = Credentials(registry, config.network)
        self._loop = asyncio.get_running_loop()
        self._socket: Datagrams | None = None
        self._sources = Sources(config.rate_max)
        self._exchanges = Exchanges()
        self._confirmables = Confirmables(self._send, random.random)
        reachable = partial(shared.attendance.reachable, self.name, self.network_id)
        self._observers = Observers(self._confirmables, self, self._loop.time, reachable)
        self._service = Service(config, registry, self._credentials, self._observers, self._record)
        self._contexts: Contexts | None = None
        self._waiting: dict[bytes, Request] = {}
        self._tokens = 0
        self._dropped = 0
        self._message_id = random.randrange(1 << 16)
        self._tick: asyncio.TimerHandle | None = None

    @property
    def place(self) -> str:
        return address(self._config.host, self.port)

    @property
    def counters(self) -> ListenerCounters:
        """Its connections are addresses that were heard of lately."""
        self._counters.connections = len(self._sources)
        self._counters.connections_total = self._sources.total
        return self._counters

    async def start(self) -> None:
        """Listens. Raises UserError where the port or a security context cannot be used."""
        try:
            self._socket = Datagrams(self._config.host, self.port)
        except OSError as error:
            raise cannot_listen(self.name, self._config.host, self.port, error, protocol="udp") from error
        if self._config.oscore:
            from edge.listeners.coap.oscore import Contexts  # and aiocoap, for those alone who use it

            try:
                self._contexts = Contexts(Path(self._config.oscore))
            except UserError:
                self._socket.close()
                self._socket = None
                raise
        self.port = self._socket.port
        self._socket.listen(self._received)
        self.is_listening = True
        self._turn()

    async def close(self) -> None:
        """Takes no more; answers what came, as far as it is recorded within DRAIN_S."""
        if self._socket is None:
            return
        self.is_listening = False
        self._socket.deafen()
        self._confirmables.end()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._collector.drained(), DRAIN_S)
        self._socket.close()
        self._socket = None
        if self._contexts is not None:
            self._contexts.close()
        if self._tick is not None:
            self._tick.cancel()

    def recheck(self) -> None:
        self._observers.recheck(self._credentials.still_holds)

    def way(self, alias_key: str, alias: str) -> CoapWay | None:
        device = (alias_key, alias)
        return CoapWay(self._observers, device) if self._observers.observes(device) else None

    def next_message_id(self) -> int:
        self._message_id = self._message_id + 1 & 0xFFFF
        return self._message_id

    # Waiter

    def recorded(self, owed: Owed) -> None:
        self._counters.recorded += owed.rows
        for token in owed.tokens:
            request = self._waiting.pop(token)
            request.source.waiting -= 1
            self._respond(request, answers.with_block(answers.CHANGED, request.block))

    def refused(self, owed: Owed, code: str) -> None:
        for token in owed.tokens:
            request = self._waiting.pop(token)
            request.source.waiting -= 1
            self._turn_away(request, answers.not_recorded(code))

    # what comes in

    def _received(self, data: bytes, peer: Peer, is_cut: bool) -> None:
        now_s = self._loop.time()
        self._counters.bytes_in += len(data)
        source = self._sources.heard(peer.host, now_s)
        if not self._sources.takes(source):
            self._count(answers.TOO_FREQUENT.refusal, 1)
            if self._sources.tells(source):
                self._answer_unread(data, peer, answers.TOO_FREQUENT)
            else:
                self.refusals.count(answers.TOO_FREQUENT.refusal, 1)
            return
        if is_cut:
            self._count(answers.DATAGRAM_TOO_LARGE.refusal, 1)
            self._answer_unread(data, peer, answers.DATAGRAM_TOO_LARGE)
            return
        try:
            message = decode(data)
        except MalformedError as error:
            self._malformed(data, peer, error)
            return
        if message.code in REQUEST_CODES and message.kind in (Kind.CONFIRMABLE, Kind.NON_CONFIRMABLE):
            self._asked(message, data, peer, source, now_s)
        elif message.kind in (Kind.ACKNOWLEDGEMENT, Kind.RESET):
            self._confirmables.heard(peer.address, message.message_id, message.kind)
        elif message.kind == Kind.CONFIRMABLE:
            # a ping, or an answer to what nobody asked (RFC 7252, section 4.2)
            self._send(empty(Kind.RESET, message.message_id), peer)

    def _asked(self, message: Message, data: bytes, peer: Peer, source: Source, now_s: float) -> None:
        known = self._exchanges.find(peer.address, message.message_id, data, now_s)
        if known is not None:
            if known.answer:
                self._send(known.answer, peer)
            return
        exchange = self._exchanges.begin(peer.address, message.message_id, data, now_s)
        request = Request(message, peer, source, exchange)
        try:
            check_options(message)
            answer = self._open(request) or self._service.answer(request, now_s)
        except MalformedError as error:
            self._counters.malformed += 1
            answer = answers.malformed(error.detail)
        except BadOptionError as error:
            answer = answers.bad_option(str(error))
        if answer is None:
            return
        if answer.refusal:
            self._turn_away(request, answer)
        else:
            self._respond(request, answer)

    def _open(self, request: Request) -> Answer | None:
        """Puts what a protected message holds in its place. Raises BadOptionError."""
        if request.message.value(Option.OSCORE) is None:
            return None
        if self._contexts is None:
            raise BadOptionError("there are no OSCORE contexts here")
        opened = self._contexts.open(request.message)
        if isinstance(opened, Answer):
            return opened
        request.message, request.seal = opened
        check_options(request.message)
        return None

    def _record(self, request: Request, origin: Origin, payload: bytes) -> Answer | None:
        if self._collector.paused or len(self._waiting) >= WAITING_MAX:
            self._collector.refuse("paused", 1)
            return answers.unavailable("paused", "more comes than the gateway's disk takes")
        if request.source.waiting >= WAITING_PER_SOURCE_MAX:
            self._collector.refuse("paused", 1)
            return answers.unavailable(
                "paused", f"{WAITING_PER_SOURCE_MAX:,} messages of this address wait to be recorded"
            )
        self._tokens += 1
        token = self._tokens.to_bytes(TOKEN_BYTES, "big")
        self._waiting[token] = request
        request.source.waiting += 1
        self._collector.add(origin, [payload], self, (token,))
        return None

    # what goes out

    def _respond(self, request: Request, answer: Answer) -> None:
        if not request.wants(answer):
            if request.is_confirmable:
                self._answer(request, empty(Kind.ACKNOWLEDGEMENT, request.message.message_id))
            return
        if request.seal is not None:
            answer = request.seal.close(answer)
        self._answer(request, request.reply(answer, self.next_message_id()).encode())

    def _answer(self, request: Request, data: bytes) -> None:
        if len(data) > ANSWER_BYTES_MAX:
            self._exchanges.drop(request.peer.address, request.message.message_id)
        elif request.is_confirmable:
            request.exchange.answer = data
        self._send(data, request.peer)

    def _turn_away(self, request: Request, answer: Answer) -> None:
        self._note(answer.refusal, answer.detail, request.peer, request.message.payload[:DATA_BYTES_MAX])
        self._count(answer.refusal, 1)
        if answer.refusal in _LOGINS:
            self._counters.auth_failures += 1
        self._respond(request, answer)

    def _malformed(self, data: bytes, peer: Peer, error: MalformedError) -> None:
        """A confirmable message is reset (RFC 7252, section 4.2); any other is passed over. What is kept of it is too
        short for a key."""
        self._counters.malformed += 1
        self._note(error.code, error.detail, peer, data[: HEAD_BYTES + TOKEN_BYTES_MAX])
        head = peek(data)
        if head is not None:
            self._send(empty(Kind.RESET, head[1]), peer)

    def _answer_unread(self, data: bytes, peer: Peer, answer: Answer) -> None:
        self._note(answer.refusal, answer.detail, peer, b"")
        head = peek(data)
        if head is not None and head[0] in REQUEST_CODES:
            _, message_id, token = head
            reply = Message(Kind.ACKNOWLEDGEMENT, answer.code, message_id, token, answer.options, answer.payload)
            self._send(reply.encode(), peer)

    def _count(self, refusal: str, times: int) -> None:
        refused = self._counters.refused
        refused[refusal] = refused.get(refusal, 0) + times

    def _note(self, code: str, detail: str, peer: Peer, data: bytes) -> None:
        where = address(peer.host, int(peer.address[1]))
        refused = Refused(self._collector.clock.wall_ms(), str(code), detail, where, "", data)
        self.refusals.add(refused, now_s=self._loop.time())

    def _send(self, data: bytes, peer: Peer) -> None:
        if self._socket is not None:
            self._socket.send(data, peer)

    def _turn(self) -> None:
        self._tick = self._loop.call_later(TICK_S, self._turn)
        now_s = self._loop.time()
        self._sources.forget(now_s - EXCHANGE_S)
        self._exchanges.forget(now_s)
        self._service.uploads.forget(now_s)
        self._observers.forget(now_s)
        self._count_drops()

    def _count_drops(self) -> None:
        """What the system dropped is refused too, though nobody knows what it was."""
        if self._socket is not None and (dropped := self._socket.dropped) > self._dropped:
            more, self._dropped = dropped - self._dropped, dropped
            self._count("receive_buffer", more)
            self._collector.refuse("receive_buffer", more)


def make_listener(config: CoapConfig, shared: Shared) -> CoapListener:
    return CoapListener(config, shared)
