"""A connection without a socket, for code that speaks to an asyncio transport."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Final, cast


class Wire(asyncio.Transport):
    """Delivers what a test gives it, as a socket would: nothing while it is paused, nothing once it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.is_paused = False
        self.has_ended = False
        """It says no more, and may still hear."""
        self._is_closing = False
        self._protocol: asyncio.Protocol

    def connect(self, protocol: asyncio.Protocol) -> None:
        self._protocol = protocol
        protocol.connection_made(self)

    def deliver(self, data: bytes) -> bool:
        """Whether it was heard."""
        if data and not self.is_paused and not self._is_closing:
            self._protocol.data_received(data)
            return True
        return False

    def end(self) -> None:
        """Nothing more comes."""
        if not self._is_closing:
            self._protocol.eof_received()

    # asyncio.Transport

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "peername":
            return "192.0.2.7", 40_000
        return _NoSocket() if name == "socket" else default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """What is written is taken at once."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.has_ended, "written behind its end"
        if not self._is_closing:
            self.written += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.has_ended = True

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        self._is_closing = True

    def abort(self) -> None:
        self._is_closing = True


class _NoSocket(socket.socket):
    def __init__(self) -> None:
        """Without a descriptor."""

    def setsockopt(self, *_: Any) -> None:
        """Nothing to set."""


class _Handle(asyncio.TimerHandle):
    def __init__(self) -> None:
        """Of a call that is never made."""

    def cancel(self) -> None:
        """Nothing to cancel."""


class _NoLoop:
    def call_later(self, *_: Any) -> asyncio.TimerHandle:
        return _Handle()

    def call_soon(self, callback: Callable[..., object], *arguments: Any) -> None:
        callback(*arguments)

    def time(self) -> float:
        return 0.0


NO_LOOP: Final = cast(asyncio.AbstractEventLoop, _NoLoop())
"""In which time stands still."""
