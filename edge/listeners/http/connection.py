"""One connection: requests by h11, one after the other. No task; one call a read, one answer a record."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol, cast

import h11

from edge.credentials import Grant
from edge.http import REQUEST_HEAD_BYTES_MAX, Answer, Request, header, parsed, sent
from edge.listeners.certificate import name_in_certificate
from edge.listeners.filling import Owed
from edge.listeners.http import problems
from edge.listeners.http.problems import Problem
from edge.listeners.http.requests import Accepted, Login, credentials
from edge.listeners.http.routes import Purpose, Route, wait_s
from edge.listeners.listener import ListenerCounters
from edge.listeners.refusals import DATA_BYTES_MAX
from edge.listeners.sockets import peer_of, watch_peer
from edge.listeners.wheel import DeadlineWheel
from protocols.limits import PAYLOAD_BYTES_MAX
from protocols.messages import Command

REQUEST_TICKS: Final = 30
"""Seconds for a whole request to come, the largest by a radio link of 100 kbit/s among them."""

IDLE_TICKS: Final = 75
"""Seconds between requests: above the minute in which many clients send once."""

CLOSE_TICKS: Final = 5
"""Seconds for a client to take its last answer and to stop sending."""

WRITE_BYTES_MAX: Final = 2 * PAYLOAD_BYTES_MAX
"""Unsent bytes: two of the largest commands, or thousands of answers that nobody reads."""

_CONTINUE: Final = h11.InformationalResponse(status_code=100, reason="Continue", headers=[])


class Hub(Protocol):
    """What a connection needs of its listener."""

    counters: ListenerCounters
    wheel: DeadlineWheel
    paused: bool

    def admit(self, connection: HttpConnection) -> bool:
        """False where there are as many as allowed."""
        ...

    def left(self, connection: HttpConnection) -> None: ...

    def route(self, request: Request) -> Route | Problem: ...

    def log_in(self, route: Route, login: Login) -> Grant | Problem: ...

    def spend(self, connection: HttpConnection, grant: Grant) -> bool:
        """Counts one message of the device, or, where none names it, of its address. False: it is over its rate."""
        ...

    def record(self, connection: HttpConnection, accepted: Accepted, payload: bytes) -> None:
        """The connection is told by `recorded` or `refused`."""
        ...

    def poll(self, connection: HttpConnection, grant: Grant) -> None: ...

    def leave(self, connection: HttpConnection, grant: Grant) -> None:
        """Its poll is over."""
        ...

    def confirm(self, grant: Grant, command_id: str) -> bool: ...

    def note(self, connection: HttpConnection, problem: Problem, data: bytes) -> None:
        """Counts it among the refusals."""
        ...


class HttpConnection(asyncio.Protocol):
    """A Waiter of the collector, a Watched of the wheel and a Poller of the mailboxes."""

    def __init__(self, hub: Hub, loop: asyncio.AbstractEventLoop) -> None:
        self.address = ""
        self.peer = ""
        self.user_name = ""
        """Of the last request's credentials."""
        self._hub = hub
        self._loop = loop
        self._transport: asyncio.Transport
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=REQUEST_HEAD_BYTES_MAX)
        self._accepted: Accepted | None = None
        self._problem: Problem | None = None  # to be told once the body has been passed over
        self._body = bytearray()
        self._method = ""
        self._idle = False  # between requests; the first must come soon
        self._advancing = False
        self._answering = False
        self._polls = False
        self._ended = False  # the client sends no more
        self._closing = False
        self._held = False
        self._paused = False

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.address, self.peer = peer_of(transport.get_extra_info("peername"))
        self._transport.set_write_buffer_limits(high=WRITE_BYTES_MAX)
        watch_peer(transport.get_extra_info("socket"))
        hub = self._hub
        if not hub.admit(self):
            hub.note(self, problems.TOO_MANY, b"")
            self._send(problems.TOO_MANY.answer(), ends=True)
            return
        hub.wheel.watch(self, REQUEST_TICKS)
        if hub.paused:
            self._loop.call_soon(self._begin_held)

    def data_received(self, data: bytes) -> None:
        self._hub.counters.bytes_in += len(data)
        if self._closing:
            return
        self._http.receive_data(data)
        self._advance()

    def eof_received(self) -> bool:
        """A client may end its side behind its last request, and still gets the answer."""
        self._ended = True
        if self._closing or self._polls:
            self.close()
            return False
        self._http.receive_data(b"")
        self._advance()
        return self._transport.get_extra_info("sslcontext") is None

    def pause_writing(self) -> None:
        detail = f"the client leaves more than {WRITE_BYTES_MAX:,} bytes unread"
        self._hub.note(self, Problem(503, "slow_reader", detail, ""), b"")
        self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        self._end_poll()
        self._hub.wheel.forget(self)
        self._hub.left(self)

    # Waiter

    def recorded(self, owed: Owed) -> None:
        self._hub.counters.recorded += owed.rows
        accepted = self._accepted
        if accepted is not None and accepted.route.purpose is Purpose.RESPONSE:
            self._hub.confirm(accepted.grant, accepted.route.command_id)
        self._respond(Answer(b"", status=204))

    def refused(self, owed: Owed, code: str) -> None:
        refused = self._hub.counters.refused
        refused[code] = refused.get(code, 0) + owed.rows
        self._refuse(problems.not_recorded(code))

    # Watched

    def check(self) -> int:
        if self._closing:
            self._transport.abort()
            return 0
        if self._polls:
            self._end_poll()
            self._respond(Answer(b"", status=204))
            return 0 if self._closing else IDLE_TICKS
        if self._answering or self._paused:
            return REQUEST_TICKS
        if self._idle:
            self.close()
        else:
            self._hub.note(self, problems.TIMED_OUT, b"")
            self._send(problems.TIMED_OUT.answer(), ends=True)
        return CLOSE_TICKS

    # Poller

    def deliver(self, command: Command) -> None:
        self._polls = False
        headers = (("Tidegate-Command", _text(command.name)), ("Tidegate-Command-Id", _text(command.id)))
        self._respond(Answer(command.payload, "application/octet-stream", headers=headers))

    def replaced(self) -> None:
        self._polls = False
        self._respond(Answer(b"", status=204))

    # for the listener

    def hold(self) -> None:
        """Stops reading, because too much waits."""
        self._held = True
        self._read_or_not()

    def release(self) -> None:
        self._held = False
        self._read_or_not()

    def revoked(self) -> None:
        """Its credential counts no more: a poll ends."""
        if self._polls:
            self._end_poll()
            self.close()

    @property
    def grant(self) -> Grant | None:
        """Of a poll that waits."""
        return self._accepted.grant if self._polls and self._accepted is not None else None

    def close(self) -> None:
        """Writes what is left to write, then ends."""
        if not self._closing:
            self._closing = True
            self._end_poll()
            self._transport.close()
            self._hub.wheel.watch(self, CLOSE_TICKS)

    def abort(self) -> None:
        self._closing = True
        self._transport.abort()

    # inside

    def _advance(self) -> None:
        """Takes what came, up to a whole request. What comes behind one waits until that is answered."""
        self._advancing = True
        while not (self._answering or self._closing):
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                self._malformed(error)
                break
            if event is h11.NEED_DATA:
                self._wait_for_more()
                break
            if isinstance(event, h11.Request):
                self._begin(event)
            elif isinstance(event, h11.Data):
                self._add(event)
            elif isinstance(event, h11.EndOfMessage):
                self._complete()
            else:
                self.close()
        self._advancing = False
        self._read_or_not()

    def _wait_for_more(self) -> None:
        if self._http.they_are_waiting_for_100_continue:
            self._transport.write(self._http.send(_CONTINUE) or b"")
        if self._http.trailing_data[0]:
            self._began()

    def _began(self) -> None:
        """The first bytes of a request set its deadline; further ones move it no more."""
        if self._idle:
            self._idle = False
            self._hub.wheel.watch(self, REQUEST_TICKS)

    def _begin(self, event: h11.Request) -> None:
        self._accepted = self._problem = None
        self._body = bytearray()
        self._began()
        self._method = event.method.decode("latin-1")
        try:
            request = parsed(event)
        except h11.RemoteProtocolError as error:
            self._malformed(error)
            return
        taken = self._take(request, event)
        if isinstance(taken, Accepted):
            self._accepted = taken
        else:
            self._problem = taken
        length = header(event, b"content-length")
        if len(length) > 15 or (length and int(length) > PAYLOAD_BYTES_MAX):
            self._too_large()
        elif self._problem is not None and header(event, b"expect"):
            self._refuse(self._problem, ends=True)

    def _take(self, request: Request, event: h11.Request) -> Accepted | Problem:
        route = self._hub.route(request)
        if isinstance(route, Problem):
            return route
        try:
            self.user_name, password = credentials(header(event, b"authorization"))
        except ValueError as error:
            return problems.malformed(400, str(error))
        if header(event, b"content-encoding") not in ("", "identity"):
            return problems.ENCODED
        login = Login(self.user_name, password, name_in_certificate(self._transport), self.address)
        grant = self._hub.log_in(route, login)
        if isinstance(grant, Problem):
            return grant
        if route.purpose is not Purpose.UPLINK and not grant.alias:
            return problems.NO_DEVICE
        if route.purpose is Purpose.POLL and wait_s(request.query.get("wait", "")) is None:
            return problems.BAD_WAIT
        if route.purpose in (Purpose.UPLINK, Purpose.RESPONSE) and not self._hub.spend(self, grant):
            return problems.TOO_FREQUENT
        return Accepted(request, route, grant, header(event, b"content-type"))

    def _add(self, event: h11.Data) -> None:
        if len(self._body) + len(event.data) > PAYLOAD_BYTES_MAX:
            self._too_large()
        else:
            self._body += event.data

    def _too_large(self) -> None:
        self._hub.counters.malformed += 1
        self._refuse(self._problem or problems.TOO_LARGE, ends=True)

    def _complete(self) -> None:
        accepted = self._accepted
        if accepted is None:
            self._refuse(self._problem or problems.EMPTY)
            return
        purpose = accepted.route.purpose
        if purpose is Purpose.POLL:
            self._poll(accepted)
        elif purpose is Purpose.RECEIVED:
            if self._hub.confirm(accepted.grant, accepted.route.command_id):
                self._respond(Answer(b"", status=204))
            else:
                self._respond(problems.NO_COMMAND.answer())
        elif not self._body:
            self._refuse(problems.EMPTY)
        else:
            self._answering = True
            payload, self._body = bytes(self._body), bytearray()
            self._hub.record(self, accepted, payload)

    def _poll(self, accepted: Accepted) -> None:
        seconds = wait_s(accepted.request.query.get("wait", "")) or 0
        self._answering = self._polls = True
        self._hub.poll(self, accepted.grant)  # which may deliver at once
        if not self._polls:
            return
        if seconds:
            self._hub.wheel.watch(self, seconds)
        else:
            self._end_poll()
            self._respond(Answer(b"", status=204))

    def _end_poll(self) -> None:
        if self._polls and self._accepted is not None:
            self._polls = False
            self._hub.leave(self, self._accepted.grant)

    def _malformed(self, error: h11.RemoteProtocolError) -> None:
        if self._ended and self._http.their_state is h11.ERROR:
            self.close()  # it left in the middle of a request
            return
        self._hub.counters.malformed += 1
        data = bytes(self._http.trailing_data[0][:DATA_BYTES_MAX])
        problem = problems.malformed(error.error_status_hint, str(error))
        self._hub.note(self, problem, data)
        self._send(problem.answer(), ends=True)

    def _refuse(self, problem: Problem, *, ends: bool = False) -> None:
        self._hub.note(self, problem, bytes(self._body[:DATA_BYTES_MAX]))
        self._respond(problem.answer(), ends=ends)

    def _respond(self, answer: Answer, *, ends: bool = False) -> None:
        """The answer to a request, then the next one that has come already."""
        self._send(answer, ends=ends)
        if self._closing:
            return
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            self._linger()
            return
        self._http.start_next_cycle()
        self._accepted = self._problem = None
        self._method = ""
        self._answering, self._idle = False, True
        self._hub.wheel.watch(self, IDLE_TICKS)
        if not self._advancing:
            self._advance()

    def _send(self, answer: Answer, *, ends: bool = False) -> None:
        if self._closing:
            return
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.close()
            return
        if ends:
            answer = Answer(answer.body, answer.content_type, answer.status, (*answer.headers, ("Connection", "close")))
        self._transport.write(sent(self._http, answer, with_body=self._method != "HEAD"))
        if ends:
            self._linger()

    def _linger(self) -> None:
        """Ends; but a client that still sends would lose the answer to a reset, so it may send on for a while."""
        if self._ended or not self._transport.can_write_eof():
            self.close()
            return
        self._closing = True
        self._transport.write_eof()
        self._read_or_not()
        self._hub.wheel.watch(self, CLOSE_TICKS)

    def _begin_held(self) -> None:
        """The loop starts to read when `connection_made` has returned, whatever that did."""
        if self._hub.paused:
            self.hold()

    def _read_or_not(self) -> None:
        """A poll goes on reading, to see when the client leaves, until more comes behind it, which waits."""
        waits = self._answering and not (self._polls and not self._http.trailing_data[0])
        pause = not self._closing and (self._held or waits)
        if pause != self._paused and not self._transport.is_closing():
            self._paused = pause
            if pause:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()


def _text(value: str) -> str:
    """As a header may hold it."""
    return "".join(c if " " <= c <= "~" else "?" for c in value)
