"""Requests and answers of HTTP/1.1 by h11, apart from any socket: what all that is served here has in common."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

import h11
import msgspec

JSON: Final = "application/json"
TEXT: Final = "text/plain; charset=utf-8"

REQUEST_HEAD_BYTES_MAX: Final = 16 * 1024
"""Request line and headers: twice what browsers send, cookies included."""


class Request(msgspec.Struct, frozen=True):
    method: str
    path: str
    """Decoded."""
    query: dict[str, str]
    """The last value of each name."""
    host: str
    """The Host header."""


class Answer(msgspec.Struct, frozen=True):
    body: bytes
    content_type: str = JSON
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    """Beside its own: name, value."""


def as_json(value: Any, status: int = 200) -> Answer:
    return Answer(msgspec.json.encode(value) + b"\n", JSON, status)


def parsed(event: h11.Request) -> Request:
    """Raises h11.RemoteProtocolError for a target that is no path and no URL."""
    text = event.target.decode("latin-1")
    try:
        target = urlsplit(f"http://here{text}" if text.startswith("/") else text)
    except ValueError as error:
        raise h11.RemoteProtocolError(f"illegal request target: {error}", 400) from None
    return Request(
        event.method.decode("latin-1"),
        unquote(target.path),
        {name: values[-1] for name, values in parse_qs(target.query).items()},
        header(event, b"host"),
    )


def header(event: h11.Request, name: bytes) -> str:
    """The value of the first header of that name, which is in small letters; empty: there is none."""
    return next((value for found, value in event.headers if found == name), b"").decode("latin-1")


def head(status: int, headers: list[tuple[str, str]]) -> h11.Response:
    return h11.Response(status_code=status, reason=HTTPStatus(status).phrase, headers=headers)


def sent(http: h11.Connection, answer: Answer, *, with_body: bool = True) -> bytes:
    """The answer's bytes; the connection has then sent it. `with_body` False: to a HEAD."""
    if answer.status == HTTPStatus.NO_CONTENT:
        headers = list(answer.headers)
    else:
        length = ("Content-Length", str(len(answer.body)))
        headers = [("Content-Type", answer.content_type), length, *answer.headers]
    parts = [http.send(head(answer.status, headers))]
    if with_body and answer.body:
        parts.append(http.send(h11.Data(data=answer.body)))
    parts.append(http.send(h11.EndOfMessage()))
    return b"".join(part for part in parts if part)
