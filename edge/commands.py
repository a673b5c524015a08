"""The gateway's commands on disk: what came from the cloud and has not ended, and what is remembered of what has, so
that a command that is told twice is run once."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from edge.sqlite_file import is_damage, open_file, remove, transaction
from protocols.messages import Command, CommandState
from tidegate.logs import get_logger

OPEN_MAX: Final = 10_000
"""Commands that wait for their devices; each takes 500 bytes of memory, its payload none. The cloud keeps what is more,
and tells it again."""
OPEN_BYTES_MAX: Final = 64 * 1024 * 1024
"""Of their payloads, on disk."""
ENDED_MAX: Final = 10_000
"""Ended ones that are remembered."""
REMEMBERED_MS: Final = 24 * 3_600_000
"""For how long after its deadline, or after it came: the cloud tells a command again within minutes, unless it was
restored."""

_SCHEMA: Final = """
PRAGMA cache_size = -256; -- KiB
CREATE TABLE IF NOT EXISTS command (
    number INTEGER PRIMARY KEY, id TEXT UNIQUE, device_id INTEGER, name TEXT, payload BLOB, bytes INTEGER,
    deadline INTEGER, came_ms INTEGER, state TEXT, text TEXT, state_ms INTEGER, sends INTEGER, kept TEXT);
"""
_ENDED: Final = (CommandState.DELIVERED, CommandState.FAILED, CommandState.EXPIRED)

_log = get_logger("edge.commands")

T = TypeVar("T")


class Held(msgspec.Struct):
    """A command without its payload, and how it stands."""

    id: str
    device_id: int
    name: str
    bytes: int
    """Of its payload."""
    deadline: int
    """Unix milliseconds by the cloud's clock."""
    came_ms: int
    """True time, as far as it was known, when it came."""
    state: CommandState
    """*sent*: it waits here."""
    text: str
    """Why it came to its state, or what it waits for."""
    state_ms: int
    sends: int
    """How often it left for the device; above 0 where it is not *delivered*: nobody knows whether it got there."""
    kept: str
    """The state that the cloud is known to have; empty: none."""

    @property
    def has_ended(self) -> bool:
        return self.state in _ENDED


class CommandQueue:
    """By id, in the order in which they came. A change holds in memory at once, and is on disk when the call returns;
    a disk that does not take it is logged, and it comes to the disk with a later change. A new command is here only
    once it is on disk."""

    def __init__(self, path: Path) -> None:
        """A file that cannot be read never keeps the gateway from starting: a damaged one is dropped."""
        self.held: dict[str, Held] = {}
        self._path = path
        self._thread = ThreadPoolExecutor(1, "commands")
        self._unwritten: set[str] = set()
        self._database: sqlite3.Connection | None = None
        self._trouble = ""
        try:
            self._database = open_file(path, _SCHEMA)
            self._load(self._database)
        except (sqlite3.Error, OSError, ValueError) as error:
            self._give_up(error)

    @property
    def open(self) -> list[Held]:
        return [held for held in self.held.values() if not held.has_ended]

    async def add(self, commands: Sequence[Command], now_ms: int) -> list[Held]:
        """Those of them that are new and that there is room for, once they are on disk. Others are not here. `now_ms`:
        true time."""
        open_now = self.open
        count, size = len(open_now), sum(held.bytes for held in open_now)
        new: dict[str, Command] = {}
        for command in commands:
            if command.id in self.held or command.id in new:
                continue
            count, size = count + 1, size + len(command.payload)
            if count > OPEN_MAX or size > OPEN_BYTES_MAX:
                _log.warning("no room for more commands", waiting=len(open_now), id=command.id)
                break
            new[command.id] = command
        added = [
            Held(one.id, one.device_id, one.name, len(one.payload), one.deadline, now_ms, CommandState.SENT, "", now_ms,
                 0, "")
            for one in new.values()
        ]  # fmt: skip
        gone = self._forgotten(now_ms)

        def write(database: sqlite3.Connection) -> None:
            database.executemany("DELETE FROM command WHERE id = ?", [(command_id,) for command_id in gone])
            database.executemany(
                """INSERT OR REPLACE INTO command (id, device_id, name, payload, bytes, deadline, came_ms, state, text,
                   state_ms, sends, kept) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
                [(held.id, held.device_id, held.name, new[held.id].payload, *_row(held)[3:]) for held in added],
            )

        if not added or not await self._run(write):
            return []
        for command_id in gone:
            del self.held[command_id]
        self.held.update((held.id, held) for held in added)
        return added

    async def payload(self, command_id: str) -> bytes | None:
        """None: the disk does not give it now."""
        found: list[bytes] = []

        def read(database: sqlite3.Connection) -> None:
            row = database.execute("SELECT payload FROM command WHERE id = ?", (command_id,)).fetchone()
            found.extend(row or ())

        return found[0] if await self._run(read) and found else None

    async def changed(self, helds: Iterable[Held]) -> None:
        """They say something else than before: on disk when this returns, if the disk takes it."""
        self._unwritten.update(held.id for held in helds)
        await self._run(lambda database: None)

    def close(self) -> None:
        self._thread.shutdown()
        if self._database is not None:
            self._database.close()

    def _forgotten(self, now_ms: int) -> list[str]:
        """Ended ones that need not be remembered any longer; the oldest come first."""
        ended = [held for held in self.held.values() if held.has_ended]
        over = len(ended) - ENDED_MAX
        return [
            held.id
            for place, held in enumerate(ended)
            if place < over or (held.kept == held.state and max(held.deadline, held.came_ms) + REMEMBERED_MS < now_ms)
        ]

    async def _run(self, work: Callable[[sqlite3.Connection], None]) -> bool:
        """Does it in one transaction with what is not written yet; False: the disk did not go along."""
        rows = [_row(self.held[command_id]) for command_id in self._unwritten if command_id in self.held]
        taken, self._unwritten = self._unwritten, set()
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._write, work, rows)
        except (sqlite3.Error, OSError) as error:
            self._unwritten |= taken
            self._give_up(error)
            return False
        self._trouble = ""
        return True

    def _write(self, work: Callable[[sqlite3.Connection], None], rows: Sequence[tuple[object, ...]]) -> None:
        if self._database is None:
            self._database = open_file(self._path, _SCHEMA)
        database = self._database
        with transaction(database):
            database.executemany(
                """UPDATE command SET text = ?2, state = ?3, state_ms = ?4, sends = ?5, kept = ?6,
                   payload = CASE WHEN ?7 THEN x'' ELSE payload END WHERE id = ?1""",
                [(row[0], row[7], row[6], row[8], row[9], row[10], row[6] in _ENDED) for row in rows],
            )
            work(database)

    def _load(self, database: sqlite3.Connection) -> None:
        names = Held.__struct_fields__
        for row in database.execute(f"SELECT {', '.join(names)} FROM command ORDER BY number"):
            self.held[row[0]] = msgspec.convert(dict(zip(names, row, strict=True)), Held)

    def _give_up(self, error: Exception) -> None:
        """The file is opened anew with the next change. One that is damaged is lost, with what waited in it: the cloud
        hears no word of those, and says so."""
        if self._database is not None:
            database, self._database = self._database, None
            database.close()
        if is_damage(error):
            remove(self._path)
        if str(error) != self._trouble:
            self._trouble = str(error)
            _log.error("commands are not on disk", path=str(self._path), reason=str(error))


def _row(held: Held) -> tuple[object, ...]:
    return (
        held.id, held.device_id, held.name, held.bytes, held.deadline, held.came_ms, held.state.value, held.text,
        held.state_ms, held.sends, held.kept,
    )  # fmt: skip
