"""An HTTP server that stands where the cloud should, and says no: what a proxy before it says when it is overloaded,
broken or being replaced."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

import msgspec

HEAD_BYTES_MAX: Final = 16 * 1024
"""A request for a WebSocket takes 1 KB."""
CONNECTIONS_MAX: Final = 256


class Refusal(msgspec.Struct, frozen=True):
    """What every request is answered."""

    status: Annotated[int, msgspec.Meta(ge=400, le=599)] | None
    """None: the request is read, and never answered."""
    retry_after_s: Annotated[int, msgspec.Meta(ge=0)] | None = None


class Front:
    """Listens on loopback."""

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal
        self.requests = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self) -> int:
        """The port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=HEAD_BYTES_MAX)
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            for writer in list(self._open):
                writer.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= CONNECTIONS_MAX:
            writer.close()
            return
        self._open.add(writer)
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.requests += 1
            if self.refusal.status is None:
                await reader.read()  # until the other side has had enough
            else:
                writer.write(_answer(self.refusal))
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass  # no request, or somebody who went away
        finally:
            self._open.discard(writer)
            writer.close()


def _answer(refusal: Refusal) -> bytes:
    wait = "" if refusal.retry_after_s is None else f"Retry-After: {refusal.retry_after_s}\r\n"
    return f"HTTP/1.1 {refusal.status} Refused\r\n{wait}Content-Length: 0\r\nConnection: close\r\n\r\n".encode()
