"""What answers of the status API have of their own."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final, Protocol

from edge.http import Answer, as_json

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


class Stream(Protocol):
    """An answer without an end: server-sent events."""

    def parts(self) -> AsyncGenerator[bytes, None]:
        """Ends soon after `close`."""
        ...

    def close(self) -> None:
        """The client is gone, or the gateway stops. Called at least once, and maybe more often."""
        ...


def problem(status: int, code: str, detail: str, remedy: str = "") -> Answer:
    """What is wrong, in the form of the cloud's API (RFC 9457)."""
    return as_json({"status": status, "code": code, "detail": detail} | ({"remedy": remedy} if remedy else {}), status)
