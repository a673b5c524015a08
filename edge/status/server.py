"""The status API over HTTP/1.1: h11 under asyncio's streams, which costs 5 MB less memory than a web server would."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from typing import Final

import h11
import msgspec

from edge.http import REQUEST_HEAD_BYTES_MAX, Answer, Request, head, parsed, sent
from edge.status.api import StatusApi
from edge.status.http import EVENTS, SAFE_HEADERS, Stream, problem
from edge.status.view import GatewayView
from tidegate.console import UserError
from tidegate.logs import get_logger

CONNECTIONS_MAX: Final = 64
"""At the same time: some browsers, a Prometheus, scripts. More are closed at once."""
BACKLOG: Final = 64
READ_BYTES: Final = 16 * 1024
IDLE_S: Final = 10.0
"""For a request to come whole, the first or the next one on a connection."""
WRITE_S: Final = 30.0
"""A client that takes nothing for this long is let go."""
CLOSE_S: Final = 2.0
"""Answers under way get this long when the gateway stops."""

_log = get_logger("edge.status")


class StatusServer:
    """Listens from the moment it is made; answers between `start` and `close`."""

    def __init__(self, host: str, port: int, view: GatewayView) -> None:
        """Raises UserError where the port is taken or the address is not ours; `port` 0: a free one."""
        self._socket = _listen(host, port)
        address = self._socket.getsockname()
        loopback = ipaddress.ip_address(address[0]).is_loopback
        if not loopback:
            _log.warning("the status page is open to other machines, and asks nobody for a password", host=host)
        self.port: int = address[1]
        self._host = host
        self._view = view
        self._api = StatusApi(view, loopback_only=loopback)
        self._server: asyncio.Server | None = None
        self._clients: dict[asyncio.Task[None], _Client] = {}

    @property
    def url(self) -> str:
        """Where this machine reaches it."""
        host = "127.0.0.1" if self._host in ("0.0.0.0", "::", "") else self._host
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, sock=self._socket, backlog=BACKLOG)

    async def close(self) -> None:
        """Ends tails, and waits a little for what else is under way."""
        if self._server is None:
            self._socket.close()
            return
        self._server.close()
        self._view.messages.tail.close()
        for client in self._clients.values():
            if client.is_idle:
                client.abort()
        if self._clients:
            await asyncio.wait(self._clients, timeout=CLOSE_S)
        # Their tasks end with their connections; asyncio would report one that is cancelled as an error.
        for client in self._clients.values():
            client.abort()
        if self._clients:
            await asyncio.wait(self._clients)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection. asyncio runs it in a task of its own."""
        task = asyncio.current_task()
        assert task is not None  # it is run as one
        if len(self._clients) < CONNECTIONS_MAX:
            client = self._clients[task] = _Client(self._api, reader, writer)
            try:
                # What ends a connection is nobody's trouble but the client's.
                with contextlib.suppress(OSError, TimeoutError, h11.ProtocolError):
                    await client.run()
            finally:
                del self._clients[task]
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


class _Client:
    def __init__(self, api: StatusApi, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._api = api
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=REQUEST_HEAD_BYTES_MAX)
        self.is_idle = True
        """Waits for a request."""

    def abort(self) -> None:
        """Its reads and writes end at once, and with them `run`."""
        self._writer.transport.abort()

    async def run(self) -> None:
        """One request after the other, until one side has enough."""
        while True:
            self.is_idle = True
            try:
                async with asyncio.timeout(IDLE_S):
                    request = await self._request()
            except h11.RemoteProtocolError as error:
                if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                    await self._send(problem(error.error_status_hint, "malformed", str(error)), "GET")
                return
            if request is None:
                return
            self.is_idle = False
            answer = await self._api.answer(request)
            if isinstance(answer, Answer):
                await self._send(answer, request.method)
            else:
                await self._stream(answer)
            if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                return
            self._http.start_next_cycle()

    async def _request(self) -> Request | None:
        """The next one, with its body passed over; None once the client has closed."""
        request: Request | None = None
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(await self._reader.read(READ_BYTES))
            elif isinstance(event, h11.Request):
                request = parsed(event)
            elif isinstance(event, h11.Data):
                raise h11.RemoteProtocolError("requests to the status API have no body", 413)
            elif isinstance(event, h11.EndOfMessage):
                return request
            else:
                return None

    async def _send(self, answer: Answer, method: str) -> None:
        answer = msgspec.structs.replace(answer, headers=SAFE_HEADERS)
        await self._write(sent(self._http, answer, with_body=method != "HEAD"))

    async def _stream(self, stream: Stream) -> None:
        """Until it ends by itself, or the client says anything more, which can only be that it goes."""
        gone = asyncio.ensure_future(self._reader.read(1))
        gone.add_done_callback(lambda _: stream.close())
        opening = head(200, [("Content-Type", EVENTS), *SAFE_HEADERS])
        try:
            await self._write(self._http.send(opening) or b"")
            async with contextlib.aclosing(stream.parts()) as parts:
                async for data in parts:
                    await self._write(self._http.send(h11.Data(data=data)) or b"")
            await self._write(self._http.send(h11.EndOfMessage()) or b"")
        finally:
            stream.close()
            gone.cancel()
            await asyncio.wait((gone,))
            if not gone.cancelled():
                gone.exception()  # a reset is looked at, so that asyncio does not report it
        self._http.send_failed()  # the bytes that `gone` may have read are missing: no next request here

    async def _write(self, data: bytes) -> None:
        self._writer.write(data)
        async with asyncio.timeout(WRITE_S):
            await self._writer.drain()


def _listen(host: str, port: int) -> socket.socket:
    listening = None
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        if listening is not None:
            listening.close()
        raise UserError(
            f"the status page cannot listen on {host}:{port}: {error.strerror or error}",
            f"stop what listens there (ss -ltnp 'sport = :{port}' names it), or set status.port to a free one",
        ) from None
    listening.setblocking(False)
    return listening
