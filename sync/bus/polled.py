"""A ZeroMQ socket on the event loop, under uvloop and asyncio alike, without a task or a future for a message."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, cast

import zmq

DRAIN_MAX: Final = 256
"""Messages read before the loop gets its turn: some 5 ms of work, so that a flood does not starve everything else."""


class PolledSocket:
    """Calls `on_messages` with all messages that are there, and `on_writable` once a `send` that failed would succeed.

    ZeroMQ's file descriptor tells of changes, not of states, and any call on the socket may swallow one (the ZMQ_FD
    section of zmq_getsockopt(3)). So each wake-up reads until nothing is left, and each send is followed by a look.
    """

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        on_messages: Callable[[list[list[bytes]]], None],
        on_writable: Callable[[], None] | None = None,
    ) -> None:
        self._socket = socket
        self._on_messages = on_messages
        self._on_writable = on_writable
        self._loop = asyncio.get_running_loop()
        self._fd = cast(int, socket.getsockopt(zmq.FD))
        self._look: asyncio.Handle | None = None
        self._blocked = False
        self._loop.add_reader(self._fd, self._drain)
        self._look_again()

    def send(self, parts: Sequence[bytes]) -> bool:
        """False if there is nobody to take it, or no room towards them; nothing of it was sent then."""
        try:
            self._socket.send_multipart(parts, zmq.NOBLOCK)
        except zmq.Again:
            self._blocked = True
            self._look_again()
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            return False
        self._look_again()
        return True

    def close(self, linger_ms: int) -> None:
        """What was sent has `linger_ms` to leave."""
        self._loop.remove_reader(self._fd)
        if self._look is not None:
            self._look.cancel()
        self._socket.close(linger_ms)

    def _is_writable(self) -> bool:
        return bool(cast(int, self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLOUT)

    def _look_again(self) -> None:
        if self._look is None:
            self._look = self._loop.call_soon(self._drain)

    def _drain(self) -> None:
        if self._look is not None:
            self._look.cancel()
            self._look = None
        messages: list[list[bytes]] = []
        receive = self._socket.recv_multipart
        try:
            while len(messages) < DRAIN_MAX:
                messages.append(receive(zmq.NOBLOCK))
            self._look_again()
        except zmq.Again:
            pass
        if messages:
            self._on_messages(messages)
        if self._blocked and not self._socket.closed and self._is_writable():
            self._blocked = False
            if self._on_writable is not None:
                self._on_writable()
