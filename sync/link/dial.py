"""Opens the WebSocket to the cloud; says in words why it did not open."""

from __future__ import annotations

import email.utils
import ipaddress
import ssl
import time
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI
from websockets.http11 import Response

from protocols.errors import UNREADABLE
from protocols.limits import LINK_FRAME_BYTES_MAX
from sync.link.limits import RETRY_AFTER_S_MAX, TEXT_BYTES_MAX, Deadlines

PING_EVERY_S: Final = 60.0
"""WebSocket's own keep-alive, behind PROBE: it only finds what the probes cannot, a peer that stopped to read."""

QUEUE_FRAMES_MAX: Final = 4
"""Frames that websockets reads ahead: the largest have 4 MiB, and a gateway has little memory."""

DIAL_ERRORS: Final = (OSError, TimeoutError, InvalidHandshake, InvalidURI, EOFError)
"""Everything that `dial` raises for what lies outside this process."""


class Refusal(msgspec.Struct, frozen=True):
    """Why no connection came about."""

    reason: str
    retry_after_s: float = 0.0
    server_time_ms: int | None = None
    """Where the cloud told it: a token that was refused as expired may only need a better clock."""


def tls_context(url: str, ca_file: Path | None) -> ssl.SSLContext | None:
    """For wss: trusts the system's authorities, and those in `ca_file` (PEM). Raises OSError if that does not serve."""
    if urlsplit(url).scheme != "wss":
        return None
    context = ssl.create_default_context()
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context


async def dial(
    url: str, token: str, *, tls: ssl.SSLContext | None, user_agent: str, deadlines: Deadlines
) -> ClientConnection:
    """Raises DIAL_ERRORS; `refusal` says what they mean. A proxy is taken from the environment, never on loopback."""
    extra: dict[str, Any] = {} if tls is None else {"ssl": tls}
    return await connect(
        url,
        additional_headers={"Authorization": f"Bearer {token}"},
        user_agent_header=user_agent,
        compression=None,
        max_size=LINK_FRAME_BYTES_MAX,
        max_queue=QUEUE_FRAMES_MAX,
        open_timeout=deadlines.open_s,
        close_timeout=deadlines.farewell_s,
        ping_interval=PING_EVERY_S,
        ping_timeout=PING_EVERY_S,
        proxy=None if is_loopback(url) else True,
        **extra,
    )


def refusal(error: BaseException) -> Refusal:
    if isinstance(error, InvalidStatus):
        return _http_refusal(error.response)
    if isinstance(error, ssl.SSLCertVerificationError):
        return Refusal(f"the cloud's certificate does not hold: {error.verify_message}")
    if isinstance(error, ssl.SSLError):
        return Refusal(f"TLS failed: {error}")
    if isinstance(error, TimeoutError):
        return Refusal("no answer: timed out while connecting")
    if isinstance(error, EOFError | ConnectionResetError | BrokenPipeError) or isinstance(error.__cause__, EOFError):
        return Refusal("the connection was closed before an answer came")
    if isinstance(error, OSError):
        return Refusal(f"cannot connect: {error.strerror or error}")
    return Refusal(f"the other end does not speak WebSocket: {error}")


class _Problem(msgspec.Struct):
    """RFC 9457, with the cloud's time."""

    type: str = ""
    detail: str = ""
    server_time_ms: int | None = None


def _http_refusal(response: Response) -> Refusal:
    try:
        problem = msgspec.json.decode(bytes(response.body), type=_Problem)
    except UNREADABLE:
        problem = _Problem()  # a proxy's page, or another server
    what = ": ".join(filter(None, (problem.type.rpartition(":")[2], problem.detail))) or response.reason_phrase
    return Refusal(
        f"the cloud answered {response.status_code} {what}"[:TEXT_BYTES_MAX],
        _retry_after_s(response.headers.get("Retry-After", ""), time.time()),
        problem.server_time_ms,
    )


def _retry_after_s(value: str, now_s: float) -> float:
    """RFC 9110, 10.2.3: seconds or a date; 0 if there is none."""
    if value.isdecimal():
        wait_s = float(value)
    else:
        try:
            wait_s = email.utils.parsedate_to_datetime(value).timestamp() - now_s
        except ValueError:
            return 0.0
    return min(max(wait_s, 0.0), RETRY_AFTER_S_MAX)


def is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
