"""What carries a line of frames in the event loop: a transport."""

from __future__ import annotations

import asyncio

from edge.listeners.frames import FrameLine


class LineProtocol(asyncio.Protocol):
    """The Carrier of a line."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.ended: asyncio.Future[Exception | None] = loop.create_future()
        """Done when the transport is closed, with what ended it."""
        self._loop = loop
        self._line: FrameLine | None = None
        self._transport: asyncio.Transport

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(exc)

    # Carrier

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def cut(self) -> None:
        self._transport.close()

    # inside

    def _begin(self, line: FrameLine) -> None:
        """The loop starts to read when `connection_made` has returned, whatever that did."""
        self._line = line
        if line.is_held:
            self._loop.call_soon(self._begin_held)

    def _begin_held(self) -> None:
        if self._line is not None and self._line.is_held:
            self.pause_reading()
