"""What MQTT sessions were promised, on the gateway's disk: in SQLite, many changes to a transaction.

A change is noted at once and written by a thread of its own, with all that came meanwhile; `then` says when it is safe.
Whoever answers a device waits for that. A file that is damaged is put aside, and the sessions in it begin anew: clients
are told that there is none [MQTT-3.2.2-2].
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import msgspec

from protocols.batch import BatchKey
from protocols.errors import UNREADABLE
from protocols.mqtt.outbox import Message, Sending
from protocols.mqtt.packets import Subscription
from protocols.mqtt.session import Session, SessionKey
from tidegate.logs import get_logger

SCHEMA_VERSION: Final = 1
_SCHEMA: Final = f"""
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA cache_size = -1024; -- KiB
CREATE TABLE IF NOT EXISTS session (
    number INTEGER PRIMARY KEY, network TEXT NOT NULL, alias_key TEXT NOT NULL, alias TEXT NOT NULL,
    client_id TEXT NOT NULL, body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS held (
    session INTEGER, packet_id INTEGER, run INTEGER NOT NULL, counter INTEGER NOT NULL,
    PRIMARY KEY (session, packet_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sending (
    session INTEGER, number INTEGER, body BLOB NOT NULL, PRIMARY KEY (session, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS retained (
    network TEXT, topic TEXT, body BLOB NOT NULL, PRIMARY KEY (network, topic)
) WITHOUT ROWID;
PRAGMA user_version = {SCHEMA_VERSION};
"""
_HOLD: Final = (
    "INSERT OR REPLACE INTO held SELECT value->>0, value->>1, value->>2, value->>3 FROM json_each(?) "
    "WHERE EXISTS (SELECT 1 FROM session WHERE number = value->>0)"
)
_RELEASE: Final = "DELETE FROM held WHERE (session, packet_id) IN (SELECT value->>0, value->>1 FROM json_each(?))"
"""One statement for many rows: a statement of its own for each would wait for Python's lock as many times."""

RETRY_S: Final = 1.0
"""After the disk did not take a transaction; its changes stay, and devices wait for their answers."""

FLUSH_S: Final = 1.0
"""What waits for a transaction holds up others' records: no longer than a disk in trouble takes for one."""

_log = get_logger("edge.mqtt")


class _Body(msgspec.Struct, array_like=True):
    """Of a session, on disk; fields are added at the end."""

    version: int
    expiry_s: int
    left_ms: int
    subscriptions: list[Subscription]


class Kept(msgspec.Struct):
    """What the disk had of a network."""

    sessions: list[Session]
    retained: list[Message]


_encode = msgspec.msgpack.Encoder().encode
_decode_body = msgspec.msgpack.Decoder(_Body).decode
_decode_sending = msgspec.msgpack.Decoder(Sending).decode
_decode_message = msgspec.msgpack.Decoder(Message).decode

Change = tuple[str, tuple[Any, ...]]


class SessionStore:
    """One for the gateway; the event loop's, but for what its thread does."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._database: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(1, "mqtt-store")
        self._next_number = 1
        self._changes: list[Change] = []
        self._held: list[tuple[int, int, int, int]] = []
        self._freed: list[tuple[int, int]] = []
        self._waiting: list[Callable[[], object]] = []
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._users = 0
        self._trouble = ""
        self.is_closed = False
        """It was used, and nobody uses it any more: the next one opens another."""
        self._begun = 0
        self._done = 0

    def open(self) -> None:
        """Raises OSError or sqlite3.Error where the folder cannot be written. Each `open` has its `close`."""
        self._users += 1
        if self._database is not None:
            return
        try:
            self._database = _connect(self._path)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            _put_aside(self._path, error)
            self._database = _connect(self._path)
        self._next_number = 1 + self._database.execute("SELECT coalesce(max(number), 0) FROM session").fetchone()[0]
        self._task = asyncio.get_running_loop().create_task(self._write_changes(), name="mqtt store")

    async def close(self) -> None:
        """Writes what is left."""
        self._users -= 1
        if self._users or self._database is None:
            return
        self.is_closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        database, self._database = self._database, None
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, _write, database, self._taken()[0])
        except sqlite3.Error as error:
            _log.error("sessions are not kept", path=str(self._path), reason=str(error))
        database.close()
        self._thread.shutdown()

    def load(self, network_id: str) -> Kept:
        """At the start, before anything is changed. Rows that cannot be read are left out, and said."""
        if self._database is None:
            raise RuntimeError("the store is not open")
        sessions: dict[int, Session] = {}
        for number, *names, body in self._database.execute(
            "SELECT number, alias_key, alias, client_id, body FROM session WHERE network = ?", (network_id,)
        ):
            try:
                kept = _decode_body(body)
            except UNREADABLE as error:
                _log.warning("session dropped", client_id=names[-1], reason=str(error))
                continue
            session = sessions[number] = Session(SessionKey(*names), number=number)
            session.version, session.expiry_s, session.left_ms = kept.version, kept.expiry_s, kept.left_ms
            session.subscriptions = {each.topic_filter: each for each in kept.subscriptions}
        for number, packet_id, run, counter in self._database.execute("SELECT * FROM held"):
            if number in sessions:
                sessions[number].held[packet_id] = BatchKey(run, counter)
        for number, body in self._database.execute("SELECT session, body FROM sending ORDER BY session, number"):
            if number in sessions:
                sessions[number].outbox.restore(_decode_sending(body))
        rows = self._database.execute("SELECT body FROM retained WHERE network = ?", (network_id,))
        return Kept(list(sessions.values()), [_decode_message(body) for (body,) in rows])

    def then(self, done: Callable[[], object]) -> None:
        """Calls `done` once all that was noted before is on disk: at once, where nothing is on its way there."""
        if not self._is_busy:
            done()
            return
        self._waiting.append(done)
        self._wake.set()

    def ticket(self) -> int:
        """Of all that was noted before, for `is_safe`."""
        return self._begun + 1

    def is_safe(self, ticket: int) -> bool:
        return self._done >= ticket

    async def flushed(self) -> None:
        """Until what was noted is on disk; not while the disk takes nothing, which is for `then` to wait for."""
        if self._trouble:
            return
        done = asyncio.Event()
        self.then(done.set)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(done.wait(), FLUSH_S)

    # what changes

    def put_session(self, network_id: str, session: Session) -> None:
        """All of it but what `hold`, `send` and their like keep."""
        if not session.number:
            session.number = self._next_number
            self._next_number += 1
        body = _Body(session.version, session.expiry_s, session.left_ms, list(session.subscriptions.values()))
        row = (session.number, network_id, *msgspec.structs.astuple(session.key), _encode(body))
        self._note("INSERT OR REPLACE INTO session VALUES (?, ?, ?, ?, ?, ?)", row)

    def drop_session(self, session: Session) -> None:
        for table, column in (("session", "number"), ("held", "session"), ("sending", "session")):
            self._note(f"DELETE FROM {table} WHERE {column} = ?", (session.number,))
        session.number = 0

    def hold(self, session: Session, packet_ids: list[int], key: BatchKey) -> None:
        """QoS 2 of the client: recorded if the log has the batch, not released yet."""
        self._held += [(session.number, packet_id, key.run, key.counter) for packet_id in packet_ids]
        self._wake.set()

    def release(self, session: Session, packet_id: int) -> None:
        self._freed.append((session.number, packet_id))
        self._wake.set()

    def send(self, session: Session, sending: Sending) -> None:
        """A message to the client, or what became of it."""
        self._note(
            "INSERT OR REPLACE INTO sending VALUES (?, ?, ?)", (session.number, sending.number, _encode(sending))
        )

    def sent(self, session: Session, sending: Sending) -> None:
        self._note("DELETE FROM sending WHERE session = ? AND number = ?", (session.number, sending.number))

    def retain(self, network_id: str, message: Message) -> None:
        """An empty payload removes it."""
        if message.payload:
            row = (network_id, message.topic, _encode(message))
            self._note("INSERT OR REPLACE INTO retained VALUES (?, ?, ?)", row)
        else:
            self._note("DELETE FROM retained WHERE network = ? AND topic = ?", (network_id, message.topic))

    # inside

    @property
    def _is_busy(self) -> bool:
        return bool(self._changes or self._held or self._freed or self._waiting)

    def _note(self, statement: str, parameters: tuple[Any, ...]) -> None:
        self._changes.append((statement, parameters))
        self._wake.set()

    def _taken(self) -> tuple[list[Change], list[Callable[[], object]]]:
        """Releases go before holds: an identifier that is released may be used again in the same transaction, and is
        not released again before it is answered."""
        changes, self._changes = self._changes, []
        if self._freed:
            freed, self._freed = self._freed, []
            changes.append((_RELEASE, (json.dumps(freed),)))
        if self._held:
            held, self._held = self._held, []
            changes.append((_HOLD, (json.dumps(held),)))
        waiting, self._waiting = self._waiting, []
        return changes, waiting

    async def _write_changes(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            self._wake.clear()
            changes, waiting = self._taken()
            self._begun += 1
            # While it is written, `then` must not call at once.
            self._waiting.append(_nothing)
            while True:
                try:
                    await loop.run_in_executor(self._thread, _write, self._database, changes)
                    break
                except sqlite3.Error as error:
                    if not self._trouble:
                        _log.error("sessions are not kept", path=str(self._path), reason=str(error))
                    self._trouble = str(error)
                    await asyncio.sleep(RETRY_S)
            self._trouble = ""
            self._done = self._begun
            self._waiting.remove(_nothing)
            for done in waiting:
                done()


def _nothing() -> None:
    """Stands for the transaction that is being written."""


def _connect(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    try:
        database.executescript(_SCHEMA)
        if database.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise sqlite3.DatabaseError("damaged")
    except sqlite3.Error:
        database.close()
        raise
    return database


def _put_aside(path: Path, error: Exception) -> None:
    for suffix in ("", "-wal", "-shm"):
        file = path.with_name(path.name + suffix)
        if file.exists():
            file.replace(path.with_name(f"{path.name}.damaged{suffix}"))
    _log.error("sessions begin anew", path=str(path), reason=str(error))


def _write(database: sqlite3.Connection | None, changes: list[Change]) -> None:
    if database is None or not changes:
        return
    database.execute("BEGIN IMMEDIATE")
    try:
        for statement, parameters in changes:
            database.execute(statement, parameters)
        database.execute("COMMIT")
    except sqlite3.Error:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise
