"""Opens the WebSocket to the cloud; says in words why it did not open."""

from __future__ import annotations

import contextlib
import email.utils
import ipaddress
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.http11 import Response

from protocols.errors import UNREADABLE
from protocols.limits import LINK_FRAME_BYTES_MAX
from protocols.times import CLOCK_UNSET_BEFORE_MS
from sync.link.errors import DialError, TransportClosedError
from sync.link.limits import RETRY_AFTER_S_MAX, TEXT_BYTES_MAX, Deadlines

PING_EVERY_S: Final = 60.0
"""WebSocket's own keep-alive, behind PROBE: it only finds what the probes cannot, a peer that stopped to read."""

QUEUE_FRAMES_MAX: Final = 4
"""Frames that websockets reads ahead: the largest have 4 MiB, and a gateway has little memory."""

UNSENT_BYTES: Final = 16 * 1024
"""Pieces that a frame is sent in, and how much may wait in buffers of websockets and of the kernel before the next one
is given: so that it is seen to get on, answers to pings come in between, and what is live waits for no full buffer."""

TCP_NOTSENT_LOWAT: Final = 25
"""tcp(7) of Linux; Python's socket has no name for it."""

CLOCK_WRONG_MS: Final = 60_000
"""A machine's clock that is off by more does not judge certificates."""

NO_CHECK_TIME: Final = ssl.VerifyFlags(0x200000)
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL's x509_vfy.h, which Python's ssl has no name for."""

_DIAL_ERRORS: Final = (OSError, TimeoutError, InvalidHandshake, InvalidURI, EOFError)
"""Everything that `connect` raises for what lies outside this process."""


class WebSocketDial:
    """The link's Dial over TCP and TLS. A proxy is taken from the environment, never on loopback."""

    def __init__(
        self,
        url: str,
        *,
        wall_ms: Callable[[], int],
        true_ms: Callable[[], int] | None = None,
        ca_file: Path | None,
        deadlines: Deadlines,
    ) -> None:
        """For wss, trusts the system's authorities, and those in `ca_file` (PEM); raises OSError if that does not
        serve. `wall_ms` is the machine's clock, by which TLS judges the dates of certificates, `true_ms` what is known
        of true time beside it."""
        self._url = url
        self._wall_ms = wall_ms
        self._true_ms = true_ms or wall_ms
        self._deadlines = deadlines
        self._tls = tls_context(url, ca_file)

    async def __call__(self, token: str, *, software: str) -> WebSocketTransport:
        extra: dict[str, Any] = {}
        if self._tls is not None:
            set_date_checks(self._tls, self._wall_ms(), self._true_ms())
            extra["ssl"] = self._tls
        try:
            websocket = await connect(
                self._url,
                additional_headers={"Authorization": f"Bearer {token}"},
                user_agent_header=software,
                compression=None,
                max_size=LINK_FRAME_BYTES_MAX,
                max_queue=QUEUE_FRAMES_MAX,
                open_timeout=self._deadlines.open_s,
                close_timeout=self._deadlines.farewell_s,
                ping_interval=PING_EVERY_S,
                ping_timeout=PING_EVERY_S,
                write_limit=UNSENT_BYTES,
                proxy=None if is_loopback(self._url) else True,
                **extra,
            )
        except _DIAL_ERRORS as error:
            raise refusal(error) from error
        transport = WebSocketTransport(websocket)
        if self._tls is not None and (wrong := self._wrong_dates(websocket)):
            transport.abort()
            raise DialError(f"the cloud's certificate does not hold: {wrong}")
        return transport

    def _wrong_dates(self, websocket: ClientConnection) -> str:
        """What true time says against the certificate, where TLS could not judge by the machine's clock."""
        now_ms = self._true_ms()
        tls = websocket.transport.get_extra_info("ssl_object")
        if tls.context.verify_flags & NO_CHECK_TIME and now_ms >= CLOCK_UNSET_BEFORE_MS:
            certificate = tls.getpeercert()
            if now_ms > 1000 * ssl.cert_time_to_seconds(certificate["notAfter"]):
                return "certificate has expired"
            if now_ms < 1000 * ssl.cert_time_to_seconds(certificate["notBefore"]):
                return "certificate is not yet valid"
        return ""


class WebSocketTransport:
    """The link's Transport over a connection of websockets."""

    def __init__(self, websocket: ClientConnection) -> None:
        self._websocket = websocket
        self.sent_bytes = 0
        self._is_cut = False
        """In the middle of a message."""
        sock = websocket.transport.get_extra_info("socket")
        with contextlib.suppress(OSError):  # other systems do without
            sock.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, UNSENT_BYTES)

    async def receive(self) -> bytes:
        try:
            return await self._websocket.recv(decode=False)
        except ConnectionClosed as closed:
            raise TransportClosedError(str(closed)) from None

    async def send(self, data: bytes) -> None:
        if self._is_cut:
            raise TransportClosedError("the last message was cut off")
        try:
            if len(data) <= UNSENT_BYTES:
                await self._websocket.send(data)
                self.sent_bytes += len(data)
            else:
                self._is_cut = True  # until all of it is sent: a sender that is cancelled leaves a part, and no way on
                await self._websocket.send(self._pieces(data))
                self._is_cut = False
        except ConnectionClosed as closed:
            raise TransportClosedError(str(closed)) from None

    async def _pieces(self, data: bytes) -> AsyncIterator[bytes]:
        """The fragments of a message (RFC 6455, 5.4)."""
        for at in range(0, len(data), UNSENT_BYTES):
            piece = data[at : at + UNSENT_BYTES]
            yield piece
            self.sent_bytes += len(piece)

    async def close(self, code: int, reason: str) -> None:
        if self._is_cut:
            self.abort()
        else:
            await self._websocket.close(code, reason)

    def abort(self) -> None:
        self._websocket.transport.abort()


def tls_context(url: str, ca_file: Path | None) -> ssl.SSLContext | None:
    """For wss."""
    if urlsplit(url).scheme != "wss":
        return None
    context = ssl.create_default_context()
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context


def set_date_checks(context: ssl.SSLContext, wall_ms: int, true_ms: int) -> None:
    """For the next connection. While the wall clock is unset, or known to be wrong, TLS does not check the dates of
    certificates by it: the cloud could never tell it the time otherwise. Names and signatures always are checked."""
    if wall_ms < CLOCK_UNSET_BEFORE_MS or abs(true_ms - wall_ms) > CLOCK_WRONG_MS:
        context.verify_flags |= NO_CHECK_TIME
    else:
        context.verify_flags &= ~NO_CHECK_TIME


def refusal(error: BaseException) -> DialError:
    """What an error of `connect` means, in words."""
    if isinstance(error, InvalidStatus):
        return _http_refusal(error.response)
    if isinstance(error, ssl.SSLCertVerificationError):
        return DialError(f"the cloud's certificate does not hold: {error.verify_message}")
    if isinstance(error, ssl.SSLError):
        return DialError(f"TLS failed: {error}")
    if isinstance(error, TimeoutError):
        return DialError("no answer: timed out while connecting")
    if isinstance(error, EOFError | ConnectionResetError | BrokenPipeError) or isinstance(error.__cause__, EOFError):
        return DialError("the connection was closed before an answer came")
    if isinstance(error, OSError):
        return DialError(f"cannot connect: {error.strerror or error}")
    return DialError(f"the other end does not speak WebSocket: {error}")


class _Problem(msgspec.Struct):
    """RFC 9457, with the cloud's time."""

    type: str = ""
    detail: str = ""
    server_time_ms: int | None = None


def _http_refusal(response: Response) -> DialError:
    try:
        problem = msgspec.json.decode(bytes(response.body), type=_Problem)
    except UNREADABLE:
        problem = _Problem()  # a proxy's page, or another server
    what = ": ".join(filter(None, (problem.type.rpartition(":")[2], problem.detail))) or response.reason_phrase
    return DialError(
        f"the cloud answered {response.status_code} {what}"[:TEXT_BYTES_MAX],
        _retry_after_s(_header(response, "Retry-After"), _header(response, "Date")),
        problem.server_time_ms,
    )


def _header(response: Response, name: str) -> str:
    """Its first value, should a proxy have added another; empty if there is none."""
    return next(iter(response.headers.get_all(name)), "")


def _retry_after_s(value: str, date: str) -> float:
    """RFC 9110, 10.2.3: seconds or a date, which counts from the answer's own `date`: this machine's clock may be
    wrong. 0 if there is none."""
    if value.isdecimal():
        wait_s = float(value)
    else:
        until_s = _http_date_s(value)
        if until_s is None:
            return 0.0
        from_s = _http_date_s(date)
        wait_s = until_s - (time.time() if from_s is None else from_s)
    return min(max(wait_s, 0.0), RETRY_AFTER_S_MAX)


def _http_date_s(value: str) -> float | None:
    """Unix seconds; None for what is no date."""
    try:
        return email.utils.parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return None


def is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
