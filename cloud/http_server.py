"""uvicorn as part of a process that has other work too: our signals, our socket, our logs."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator
from typing import Final

import uvicorn
from fastapi import FastAPI

from protocols.limits import LINK_FRAME_BYTES_MAX
from tidegate.console import UserError

CLOSE_S: Final = 5
"""Requests under way get this long when the process stops."""
BACKLOG: Final = 2048
"""A whole fleet of gateways may come back at once."""


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals to the process (tidegate.loop)."""
        yield


class HttpServer:
    """Listens from the moment it is made, so that a taken port is known before anything else starts."""

    def __init__(self, host: str, port: int, *, tls_cert: str = "", tls_key: str = "") -> None:
        """Raises UserError where the port is taken, the address is not ours, or the certificate is of no use."""
        if tls_cert:
            _check_tls(tls_cert, tls_key)
        self._tls = (tls_cert or None, tls_key or None)
        self._socket = _listen(host, port)
        self.host = host
        self.port: int = self._socket.getsockname()[1]

    @property
    def url(self) -> str:
        shown = "127.0.0.1" if self.host in ("0.0.0.0", "::", "") else self.host
        return f"http{'s' if self._tls[0] else ''}://{shown}:{self.port}"

    async def serve(self, app: FastAPI, stop: asyncio.Event) -> None:
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            http="h11",  # bounds the head of a request, which httptools, where it is installed, does not
            ws="websockets-sansio",
            ws_max_size=LINK_FRAME_BYTES_MAX,
            ws_per_message_deflate=False,
            timeout_graceful_shutdown=CLOSE_S,
            ssl_certfile=self._tls[0],
            ssl_keyfile=self._tls[1],
        )
        server = _Server(config)

        async def end() -> None:
            await stop.wait()
            server.should_exit = True

        ending = asyncio.ensure_future(end())
        try:
            await server.serve(sockets=[self._socket])
        finally:
            ending.cancel()

    def close(self) -> None:
        self._socket.close()


def _check_tls(cert: str, key: str) -> None:
    """uvicorn loads them itself, but only once everything else has started."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise UserError(
            f"cannot use http.tls_cert {cert} with http.tls_key {key}: {error.strerror or error}",
            "both must be readable PEM files, and the key must be the certificate's",
        ) from None


def _listen(host: str, port: int) -> socket.socket:
    listening = None
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        listening = socket.socket(*found[0][:3])
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(found[0][4])
        listening.listen(BACKLOG)
    except OSError as error:
        if listening is not None:
            listening.close()
        raise UserError(
            f"cannot listen on {host}:{port}: {error.strerror or error}",
            "set http.port to a free one (0 takes any), or end what listens there",
        ) from None
    listening.setblocking(False)
    return listening
