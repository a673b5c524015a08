"""The cloud's end of the link as an ASGI application (ASGI 3, WebSocket): runs under uvicorn, alone or as a route:

    app.router.routes.append(WebSocketRoute("/link/v1", LinkApp(authenticate, open_session)))

Run uvicorn with `ws_max_size=LINK_FRAME_BYTES_MAX` and `ws_per_message_deflate=False`: blocks are compressed already.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import msgspec

from sync.link.errors import TransportClosedError
from sync.link.server import GatewaySession, serve, unix_ms
from sync.link.tokens import Claims, TokenError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

PROBLEM_TYPE: Final = "urn:tidegate:problem:"
"""Followed by the error's code."""


class RejectedError(Exception):
    """Raised by `authenticate` or `open_session`: answer the handshake with this HTTP status. The body is a problem
    (RFC 9457), which also tells the cloud's time as `server_time_ms`."""

    def __init__(self, status: int, code: str, text: str, retry_after_s: float | None = None) -> None:
        super().__init__(f"{status} {code}: {text}")
        self.status = status
        self.code = code
        self.text = text
        self.retry_after_s = retry_after_s


class LinkApp:
    """`authenticate` turns a bearer token into claims that hold, or raises TokenError (401) or RejectedError;
    `open_session` gives a session for as long as the connection stands."""

    def __init__(
        self,
        authenticate: Callable[[str], Awaitable[Claims]],
        open_session: Callable[[Claims], AbstractAsyncContextManager[GatewaySession]],
        *,
        wall_ms: Callable[[], int] = unix_ms,
    ) -> None:
        self._authenticate = authenticate
        self._open_session = open_session
        self._wall_ms = wall_ms

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            raise ValueError(f"the link speaks WebSocket, not {scope['type']}")
        await receive()  # websocket.connect
        try:
            claims = await self._authenticate(_bearer(scope))
            async with self._open_session(claims) as session:
                await send({"type": "websocket.accept"})
                await serve(AsgiTransport(receive, send), session)
        except TokenError as error:
            await self._reject(send, RejectedError(401, error.code, error.text))
        except RejectedError as error:
            await self._reject(send, error)

    async def _reject(self, send: Send, error: RejectedError) -> None:
        body = {
            "type": PROBLEM_TYPE + error.code,
            "title": "Link refused",
            "status": error.status,
            "detail": error.text,
            "server_time_ms": self._wall_ms(),
        }
        headers = [(b"content-type", b"application/problem+json")]
        if error.status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        if error.retry_after_s is not None:
            headers.append((b"retry-after", str(round(error.retry_after_s)).encode()))
        await send({"type": "websocket.http.response.start", "status": error.status, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": msgspec.json.encode(body)})


class AsgiTransport:
    """The channels of an accepted ASGI WebSocket as the link's Transport."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._closed = False
        self.sent_bytes = 0

    async def receive(self) -> bytes:
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self._closed = True
            raise TransportClosedError(f"closed with {message.get('code', 1005)}")
        data = message.get("bytes")
        return data if isinstance(data, bytes) else b""  # text is no frame, and an empty one is refused as such

    async def send(self, data: bytes) -> None:
        try:
            await self._send({"type": "websocket.send", "bytes": data})
        except OSError as error:  # what ASGI servers raise on a connection that is gone (spec 2.4)
            self._closed = True
            raise TransportClosedError(str(error)) from None
        self.sent_bytes += len(data)

    async def close(self, code: int, reason: str) -> None:
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(OSError):  # it is gone already
            await self._send({"type": "websocket.close", "code": code, "reason": reason})

    def abort(self) -> None:
        self._closed = True  # ASGI has no word for it: servers cut a connection whose application has returned


def _bearer(scope: Message) -> str:
    for name, value in scope["headers"]:
        if name.lower() == b"authorization":
            scheme, _, token = value.decode("latin-1").partition(" ")
            if scheme.lower() == "bearer" and token:
                return str(token.strip())
    raise RejectedError(401, "token-missing", "the Authorization header holds no bearer token")
