"""Requests and answers of the status API, apart from any server."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Final, Protocol

import msgspec

JSON: Final = "application/json"
TEXT: Final = "text/plain; charset=utf-8"
HTML: Final = "text/html; charset=utf-8"
EVENTS: Final = "text/event-stream"

SAFE_HEADERS: Final = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    # The page brings all that it needs; what a device sent can name nothing to be fetched or run from elsewhere.
    (
        "Content-Security-Policy",
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'",
    ),
)


class Request(msgspec.Struct, frozen=True):
    method: str
    path: str
    query: dict[str, str]
    """The last value of each name."""
    host: str
    """The Host header."""


class Answer(msgspec.Struct, frozen=True):
    body: bytes
    content_type: str = JSON
    status: int = 200


class Stream(Protocol):
    """An answer without an end: server-sent events."""

    def parts(self) -> AsyncGenerator[bytes, None]:
        """Ends soon after `close`."""
        ...

    def close(self) -> None:
        """The client is gone, or the gateway stops. Called at least once, and maybe more often."""
        ...


def as_json(value: Any, status: int = 200) -> Answer:
    return Answer(msgspec.json.encode(value) + b"\n", JSON, status)


def problem(status: int, code: str, detail: str) -> Answer:
    """What is wrong, in the form of the cloud's API (RFC 9457)."""
    return as_json({"status": status, "code": code, "detail": detail}, status)
