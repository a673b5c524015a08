"""What an embedded engine is to its supervisor: a program with a data directory and a port."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from cloud.engines.access import Access
from cloud.engines.confinement import Account, Confinement, Place


class NotReadyError(Exception):
    """Ask again: nothing listens yet, or it says that it is starting or recovering. The text says which."""


class SilentError(NotReadyError):
    """Something takes connections and does not answer, or not as this engine does."""


class Program(Protocol):
    name: str
    """Its name in progress, logs and paths: settings.POSTGRESQL or settings.NATS."""
    process_name: str
    """Its name in the kernel (`comm`)."""
    stop_signals: tuple[signal.Signals, signal.Signals]
    """For a stop that leaves nothing to recover, and for one that leaves it to recovery."""

    def installed(self) -> Sequence[Place]:
        """The files of its installation. Raises UserError if it is not installed."""
        ...

    async def create(self, data: Path, account: Account | None, installed: Sequence[Place], access: Access) -> None:
        """Makes the data directory, whole or not at all; returns at once if it is there. Raises UserError if it cannot,
        or if what is there is not for this program."""
        ...

    def configure(self, data: Path, confinement: Confinement, access: Access) -> None:
        """Writes the configuration, as it is to be from now on, over the one that is there. Nothing runs there now."""
        ...

    def argv(self, confinement: Confinement, access: Access) -> Sequence[str]:
        """The command line of the server, with paths as seen inside."""
        ...

    def leader(self, data: Path, pids: Sequence[int]) -> int | None:
        """Which of the processes in the data directory is the server itself."""
        ...

    def url(self, access: Access) -> str: ...

    async def ping(self, access: Access) -> None:
        """Returns if the engine is ready for clients. Raises NotReadyError, and UserError if it does not let us in."""
        ...
