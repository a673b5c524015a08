"""A serial cable: two pseudo-terminals, joined at their far ends. What is written to one port is read at the other.

Ports are links to the terminals, which stay the same whoever opens and closes them: so a gateway may be started anew,
as with an adapter that stays plugged in.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import termios
import tty
from pathlib import Path
from typing import Final

READ_BYTES: Final = 4096
PATIENCE_S: Final = 1.0
"""How long a port that takes no more is waited for. Then nobody reads there, and what it holds is lost, as on any line
without flow control: whoever writes at the other end is not to hang because of that."""


class SerialCable:
    """Plugged in by `open`, until `close`."""

    def __init__(self, one: Path, other: Path) -> None:
        """Where its ports are to be found; whatever is there goes."""
        self._links = (one, other)
        self._ends: list[_End] = []

    def open(self) -> None:
        """In a running event loop. Raises OSError where no terminal can be had."""
        loop = asyncio.get_running_loop()
        for link in self._links:
            self._ends.append(_End(link, loop))
        for end, other in (self._ends, reversed(self._ends)):
            end.pass_on_to(other)

    def close(self) -> None:
        """Also takes away the folders of its links, if nothing else is in them: a shell would write into a file of the
        same name without a word."""
        for end in self._ends:
            end.close()
        self._ends = []
        for link in self._links:
            with contextlib.suppress(OSError):
                link.parent.rmdir()


class _End:
    def __init__(self, link: Path, loop: asyncio.AbstractEventLoop) -> None:
        self._link = link
        self._loop = loop
        # The port is held open here too: else it would hang up when the last who has it open closes it.
        self._line, self._port = os.openpty()
        self._unsent = b""
        self._other: _End
        self._giving_up: asyncio.TimerHandle | None = None
        tty.setraw(self._port)
        os.set_blocking(self._line, False)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(os.ttyname(self._port))

    def pass_on_to(self, other: _End) -> None:
        self._other = other
        self._loop.add_reader(self._line, self._readable)

    def close(self) -> None:
        self._link.unlink(missing_ok=True)
        self._loop.remove_reader(self._line)
        self._end_waiting()
        os.close(self._line)
        os.close(self._port)

    def _readable(self) -> None:
        self._other._take(os.read(self._line, READ_BYTES), self)

    def _take(self, data: bytes, giver: _End) -> None:
        self._unsent = data
        if self._is_sent():
            return
        self._loop.remove_reader(giver._line)
        self._loop.add_writer(self._line, self._writable)
        self._giving_up = self._loop.call_later(PATIENCE_S, self._forget)

    def _is_sent(self) -> bool:
        """Writes as much as the port takes."""
        try:
            self._unsent = self._unsent[os.write(self._line, self._unsent) :]
        except BlockingIOError:
            return False
        return not self._unsent

    def _writable(self) -> None:
        if self._is_sent():
            self._go_on()

    def _forget(self) -> None:
        self._unsent = b""
        termios.tcflush(self._port, termios.TCIFLUSH)
        self._go_on()

    def _go_on(self) -> None:
        self._end_waiting()
        self._loop.add_reader(self._other._line, self._other._readable)

    def _end_waiting(self) -> None:
        if self._giving_up is not None:
            self._giving_up.cancel()
            self._giving_up = None
            self._loop.remove_writer(self._line)
