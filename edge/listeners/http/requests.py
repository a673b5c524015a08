"""A request whose head was looked at."""

from __future__ import annotations

import base64
import binascii

import msgspec

from edge.credentials import Grant
from edge.http import Request
from edge.listeners.http.routes import Route


class Accepted(msgspec.Struct, frozen=True):
    """It may speak; its body may still be on the way."""

    request: Request
    route: Route
    grant: Grant
    content_type: str


class Login(msgspec.Struct, frozen=True):
    """What a request shows of who sends it."""

    user_name: str
    password: bytes | None
    """None: it has no credentials."""
    certified: str
    """Whom the certificate of its connection names; empty: nobody."""
    address: str
    """The peer's, without its port."""


def credentials(text: str) -> tuple[str, bytes | None]:
    """User name and password of an Authorization header (RFC 7617, RFC 6750); a Bearer token is a password without a
    name. Where there are several colons, the last counts: a name may be KEY:ALIAS, and passwords that the cloud makes
    hold none. Raises ValueError."""
    if not text:
        return "", None
    scheme, _, value = text.partition(" ")
    if scheme.lower() == "bearer":
        return "", value.strip().encode("latin-1")
    if scheme.lower() != "basic":
        raise ValueError("Authorization is neither Basic nor Bearer")
    try:
        name, colon, password = base64.b64decode(value.strip(), validate=True).rpartition(b":")
        if not colon:
            raise ValueError
        return name.decode(), password
    except (binascii.Error, ValueError):
        raise ValueError("Authorization: Basic is followed by base64 of NAME:PASSWORD") from None
