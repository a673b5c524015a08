"""Requests of HTTP devices: a connection of the listener, without its socket."""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

from edge.credentials import Grant
from edge.http import REQUEST_HEAD_BYTES_MAX, Request
from edge.listeners.filling import Owed
from edge.listeners.http import problems
from edge.listeners.http.connection import HttpConnection
from edge.listeners.http.problems import Problem
from edge.listeners.http.requests import Accepted, Login
from edge.listeners.http.routes import Route, route
from edge.listeners.listener import ListenerCounters
from edge.listeners.wheel import DeadlineWheel
from protocols.codecs.media import codec_of_media_type
from protocols.limits import PAYLOAD_BYTES_MAX
from protocols.messages import Command
from protocols.templates import Templates
from tests.edge.listeners.http_world import get, post
from tests.fuzz.target import TAKEN, Parser, Stretch, in_pieces
from tests.fuzz.transport import NO_LOOP, Wire

PATHS: Final = ("{serial}", "sensors/{serial}/up")


class Hub:
    """Lets all in, and records at once."""

    def __init__(self) -> None:
        self.counters = ListenerCounters()
        self.wheel = DeadlineWheel()
        self.paused = False
        self.recorded: list[bytes] = []
        self.noted: list[str] = []
        self._templates = Templates(PATHS)
        self._owed: list[tuple[HttpConnection, int]] = []

    def admit(self, _connection: HttpConnection) -> bool:
        return True

    def left(self, _connection: HttpConnection) -> None: ...

    def route(self, request: Request) -> Route | Problem:
        path = request.path.removeprefix("/")
        found = route(self._templates, path)
        if found is None:
            return problems.no_path(path, PATHS)
        return found if request.method in found.methods else problems.wrong_method(request.method, found.methods)

    def log_in(self, route: Route, _login: Login) -> Grant | Problem:
        return Grant("serial", route.name.alias or "pump", "")

    def record(self, connection: HttpConnection, accepted: Accepted, payload: bytes) -> None:
        codec_of_media_type(accepted.content_type)
        self.recorded.append(payload)
        self._owed.append((connection, len(payload)))

    def spend(self, _connection: HttpConnection, _grant: Grant) -> bool:
        return True

    def poll(self, connection: HttpConnection, grant: Grant) -> None:
        if grant.alias == "told":
            connection.deliver(Command("c1", 1, "restart\r\n\x00ü", b"now", 0))

    def leave(self, _connection: HttpConnection, _grant: Grant) -> None: ...

    def confirm(self, _grant: Grant, command_id: str) -> bool:
        return command_id == "c1"

    def note(self, _connection: HttpConnection, problem: Problem, _data: bytes) -> None:
        self.noted.append(problem.code)

    def settle(self) -> None:
        """What was to be recorded is."""
        while self._owed:
            connection, size = self._owed.pop()
            connection.recorded(Owed([b""], 1, size))


def served(pieces: Iterable[bytes]) -> tuple[list[bytes], list[str], bytes]:
    """Payloads recorded, refusals, answers."""
    hub, wire = Hub(), Wire()
    connection = HttpConnection(hub, NO_LOOP)
    wire.connect(connection)
    longest = 0
    for piece in pieces:
        if not wire.deliver(piece):
            break
        longest = max(longest, len(piece))
        hub.settle()
        assert len(connection._http.trailing_data[0]) <= REQUEST_HEAD_BYTES_MAX + longest
        assert len(connection._body) <= PAYLOAD_BYTES_MAX
    return hub.recorded, hub.noted, bytes(wire.written)


def serves(data: bytes) -> str:
    recorded, noted, answered = served([data])
    again, _, _ = served(in_pieces(data))
    # Where reading pauses, or the connection ends, what comes in one piece with what is before it is looked at all the
    # same; cut elsewhere, it is not.
    assert recorded[: len(again)] == again[: len(recorded)], "cut otherwise, it records something else"
    assert all(0 < len(payload) <= PAYLOAD_BYTES_MAX for payload in recorded)
    statuses = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d\d\d) ", answered)]
    assert statuses.count(204) >= len(recorded)
    assert all(status < 500 or status == HTTPStatus.NOT_IMPLEMENTED for status in statuses)
    return TAKEN if recorded else noted[0] if noted else "none"


CHUNKED: Final = b"POST /pump HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n"
REQUESTS: Final = (
    post(),
    post("/sensors/7/up?x=1", b"[]", "Content-Type: application/json; charset=utf-8\r\nExpect: 100-continue\r\n"),
    CHUNKED + b"5\r\n{\"t\":\r\n2;x=y\r\n1}\r\n0\r\nTrailer: x\r\n\r\n",
    get("/told/down?wait=0"),
    get("/pump/down"),
    post("/pump/response/c1", b'{"ok":true}'),
    b"POST http://gateway/pump/down/c1/received HTTP/1.1\r\nHost: gateway\r\nContent-Length: 0\r\n\r\n",
    b"PUT http://[::1]:8082/pump HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 2\r\n\r\n{}",
    post("/pump", b"x", "Content-Encoding: gzip\r\nConnection: close\r\n"),
    b"HEAD /%ff%00 HTTP/1.0\r\n\r\n",
)  # fmt: skip

PARSERS: Final = (
    Parser(
        "http",
        serves,
        REQUESTS,
        stretches=(
            Stretch(b"", post()),
            Stretch(b"POST /pump HTTP/1.1\r\nHost: g\r\n", b"a: b\r\n", b"\r\n"),
            Stretch(b"POST /", b"%41", b" HTTP/1.1\r\nHost: g\r\n\r\n"),
            Stretch(b"GET /pump/down?", b"a&", b" HTTP/1.1\r\nHost: g\r\n\r\n"),
            Stretch(CHUNKED, b"2\r\nxy\r\n", b"0\r\n\r\n"),
            Stretch(CHUNKED + b"1", b";"),
            Stretch(get("/pump/down"), b"x"),
            Stretch(b"", b"\r\n"),
        ),
        steps_per_byte=120,
    ),
)
