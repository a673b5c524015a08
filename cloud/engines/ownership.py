"""Who starts, supervises and stops an engine, when several processes use one data directory.

Two locks of the kernel, which it releases when their holder dies, however it dies:

    users   shared by everyone that uses the engine; exclusive while it is being stopped
    owner   held by the one that starts, supervises and stops it

An owner that leaves while others use the engine leaves it running, and one of them becomes the owner. The last to leave
stops it.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class Ownership:
    """One process's part in it. Opens two files in `directory`, which must exist."""

    def __init__(self, directory: Path) -> None:
        self._users = _open(directory / "users.lock")
        self._owner = _open(directory / "owner.lock")
        self.owned = False

    @property
    def descriptor(self) -> int:
        """The owner's lock, for a child that shall hold it too."""
        return self._owner

    def join(self) -> bool:
        """Become a user; False while somebody is stopping the engine."""
        return _lock(self._users, fcntl.LOCK_SH)

    def own(self) -> bool:
        """Become the owner, unless another process is."""
        self.owned = self.owned or _lock(self._owner, fcntl.LOCK_EX)
        return self.owned

    def leave(self) -> bool:
        """Stop being a user. True: nobody else is, and the caller owns the engine and is to stop it, then `close`."""
        fcntl.flock(self._users, fcntl.LOCK_UN)
        while self.own():
            if _lock(self._users, fcntl.LOCK_EX):
                return True
            self._disown()
            # Whoever left while we held `owner` took us for the one to stop the engine. So look again: either the lock
            # of the users shows that somebody is still there, who will come here later, or it is for us to do.
            if not _lock(self._users, fcntl.LOCK_EX):
                return False
            fcntl.flock(self._users, fcntl.LOCK_UN)
        return False

    def close(self) -> None:
        """Releases both locks."""
        for descriptor in (self._users, self._owner):
            os.close(descriptor)
        self.owned = False

    def _disown(self) -> None:
        fcntl.flock(self._owner, fcntl.LOCK_UN)
        self.owned = False


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
