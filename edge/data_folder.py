"""The data folder belongs to one gateway at a time, which says there how it can be reached.

`gateway.lock` is locked (flock) for as long as a gateway runs on the folder, however it ends, and holds a JSON object:
Running. Its content means nothing while nobody holds the lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from pathlib import Path
from typing import Final

import msgspec

from tidegate.console import UserError

LOCK_FILE: Final = "gateway.lock"
_BYTES_MAX: Final = 64 * 1024


class Running(msgspec.Struct, frozen=True):
    """What commands need to know of the gateway that runs."""

    pid: int
    status_url: str = ""
    """Base address of the status page and API; empty while it starts."""
    ports: dict[str, int] = {}
    """Listener to port."""
    bus: str = ""
    """Endpoint of the bus."""


class DataFolder:
    """The folder, held against other gateways until `close`."""

    def __init__(self, path: Path) -> None:
        """Makes the folder if there is none. Raises UserError where it cannot be used or another gateway has it."""
        self.path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._descriptor = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UserError(
                f"cannot use the data folder {path}: {error.strerror}",
                "set data_dir (or --data) to a folder that this user may write to",
            ) from None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            other = _read(path)
            who = f"as process {other.pid} " if other is not None else ""
            raise UserError(
                f"another gateway runs {who}on the data folder {path}",
                "end that one, or give this one a folder of its own: --data DIR",
            ) from None
        self.tell(Running(os.getpid()))

    def tell(self, running: Running) -> None:
        data = msgspec.json.encode(running)
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, data, 0)

    def close(self) -> None:
        os.close(self._descriptor)


def write_whole(path: Path, data: bytes) -> None:
    """A file of mode 0600, whole or not at all, also through a power cut; durable when it returns. Raises OSError."""
    number, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(number, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def running(path: Path) -> Running | None:
    """The gateway that runs on the folder; None if there is none."""
    try:
        descriptor = os.open(path / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(
            f"cannot look into the data folder {path}: {error.strerror}", "run as the gateway's user"
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(path)
    finally:
        os.close(descriptor)
    return None


def _read(path: Path) -> Running | None:
    """None for the moment in which it is being written."""
    try:
        with (path / LOCK_FILE).open("rb") as stream:
            return msgspec.json.decode(stream.read(_BYTES_MAX), type=Running)
    except (OSError, msgspec.MsgspecError):
        return None
