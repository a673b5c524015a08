"""What the gateway tells systemd (sd_notify(3)), datagrams of NAME=VALUE lines to the socket that $NOTIFY_SOCKET names:

READY=1      devices are served
STATUS=…     one line for `systemctl status`
WATCHDOG=1   it lives: the event loop turns, and the recorder answers what it takes
STOPPING=1   it goes
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from tidegate.logs import get_logger

SOCKET: Final = "NOTIFY_SOCKET"
WATCHDOG_US: Final = "WATCHDOG_USEC"
WATCHDOG_PID: Final = "WATCHDOG_PID"

BEATS: Final = 3
"""Within the time after which systemd loses its patience: one may be late, and one be lost."""

STATUS_S: Final = 20.0
"""From one status to the next where there is no watchdog."""

_log = get_logger("edge.service")


class Notify:
    """Says nothing where nobody asked for it, and raises nothing: a gateway works without anybody who listens."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        address = environ.get(SOCKET, "")
        # In front of a name that is no path stands an @ for the zero byte (unix(7), abstract sockets).
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.beat_s = _beat_s(environ)
        """From one sign of life to the next."""

    @property
    def is_heard(self) -> bool:
        return bool(self._address)

    def tell(self, **fields: str) -> None:
        """`READY="1"`, `STATUS="…"`, …"""
        if not self._address:
            return
        lines = "\n".join(f"{name}={value.replace(chr(10), ' ')}" for name, value in fields.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sock:
                sock.sendto(lines.encode(), self._address)
        except OSError as error:
            _log.warning("systemd is not told", reason=error.strerror or str(error))

    async def run(self, is_alive: Callable[[], bool], status: Callable[[], str]) -> None:
        """Signs of life, until cancelled. While `is_alive` is false there are none, and systemd acts on that."""
        while True:
            if is_alive():
                self.tell(WATCHDOG="1", STATUS=status())
            else:
                self.tell(STATUS=f"the recorder does not answer; {status()}")
            await asyncio.sleep(self.beat_s)


class Recording(Protocol):
    """The recorder, as far as its life goes."""

    @property
    def taken(self) -> int:
        """Batches that it was given since the start."""
        ...

    @property
    def answered(self) -> int:
        """Of them, those that have an answer, whatever it was."""
        ...


class Pulse:
    """Whether the recorder lives: it has answered all that it was given, or something since it was last asked. A disk
    that fails gives answers too; only one that hangs gives none."""

    def __init__(self, recorder: Recording) -> None:
        self._recorder = recorder
        self._answered = -1

    def is_alive(self) -> bool:
        answered = self._recorder.answered
        lives = answered == self._recorder.taken or answered != self._answered
        self._answered = answered
        return lives


def _beat_s(environ: Mapping[str, str]) -> float:
    wanted, pid = environ.get(WATCHDOG_US, ""), environ.get(WATCHDOG_PID, "")
    if not wanted.isdecimal() or int(wanted) == 0 or pid not in ("", str(os.getpid())):
        return STATUS_S
    return int(wanted) / 1e6 / BEATS
