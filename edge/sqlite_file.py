"""A small SQLite file of the gateway's own: how it is opened, written, and found to be of no use.

By `sqlite3` alone, as `sqlite_utils` takes 7 MB and 0.2 s for what are a few statements; with a rollback journal, as a
write-ahead log needs room even to be read, and the disk may be full.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_DAMAGED: Final = frozenset(
    {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_SCHEMA}
)
"""What a new file mends; SQLITE_ERROR is a table with other columns. Others are the disk's matter."""

BUSY_S: Final = 1.0
"""Somebody looks into the file with a tool of theirs: the gateway waits no longer for them to let go."""


def open_file(path: Path, schema: str) -> sqlite3.Connection:
    """One connection, used by one thread at a time: first the one that loads, then the writer's. The file is its
    owner's alone. Raises OSError, sqlite3.Error."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    database = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=BUSY_S)
    try:
        database.executescript(schema)
    except sqlite3.Error:
        database.close()
        raise
    return database


@contextlib.contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def is_damage(error: Exception) -> bool:
    """Whether only a new file helps: what the disk did may pass."""
    if isinstance(error, sqlite3.Error):
        return error.sqlite_errorcode & 0xFF in _DAMAGED
    return not isinstance(error, OSError)


def remove(path: Path) -> None:
    """With its journal."""
    for name in (path.name, f"{path.name}-journal"):
        path.with_name(name).unlink(missing_ok=True)
