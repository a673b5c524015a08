"""The implementations of the pipeline's store that the contract suite runs on, and how its tests look at them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec
import pytest

from cloud.db import commands, current, history, inbox, presence, reject_replays, rejects, sources
from cloud.db.current import CurrentRow
from cloud.db.database import Database
from cloud.db.history import HistoryRow
from cloud.db.postgres_store import PostgresStore
from cloud.model.claim import FATES, Claim
from cloud.model.command import Standing
from cloud.model.rejected import RejectFilter, RejectRow
from cloud.model.unresolved import InboxRow
from cloud.services.store import Store, Transaction
from protocols.shipment import Run

DEADLINE_S = 20.0
NETWORK = "n"
ALIAS_KEY = "serial"


class DeadLetter(msgspec.Struct, frozen=True):
    hop: str
    topic: str
    detail: str
    data: bytes


class Premises(Protocol):
    """A store without any row but what is asked for here, and looks at what is committed in it."""

    store: Store

    async def add_project(self, project_id: str) -> int:
        """With a source of messages, whose number it gives."""
        ...

    async def add_device(self, project_id: str, alias: str) -> int:
        """A change of the registry, as the API makes them: waits for transactions that hold the newest revision."""
        ...

    async def remove_device(self, project_id: str, alias: str) -> None: ...

    async def fates(self, hop: str, source_id: int, epoch: int) -> dict[str, int]:
        """Those that are not 0."""
        ...

    async def history(self, project_id: str, device_id: int) -> list[HistoryRow]:
        """In order of (event time, id)."""
        ...

    async def current(self, project_id: str, device_id: int) -> list[CurrentRow]:
        """In order of attributes."""
        ...

    async def inbox(self, project_id: str) -> list[InboxRow]:
        """The newest first."""
        ...

    async def rejects(self, project_id: str) -> list[RejectRow]:
        """The newest first."""
        ...

    async def misfits(self, project_id: str) -> list[tuple[bytes, str, int]]:
        """Message id, reason and count, in the order that they came in."""
        ...

    async def want_replay(self, project_id: str, wanted: RejectFilter) -> None:
        """Of what is rejected by now."""
        ...

    async def dead_letters(self, project_id: str) -> list[DeadLetter]: ...

    async def add_command(self, project_id: str, device_id: int) -> str:
        """Its id; it is pending."""
        ...

    async def command(self, project_id: str, device_id: int, command_id: str) -> tuple[Standing, bytes | None]:
        """How it stands, and its answer."""
        ...

    async def presence(self, project_id: str, device_id: int) -> tuple[bool, str, int] | None:
        """Of a device with one alias: online, reason, since."""
        ...


class PostgresPremises:
    def __init__(self, database: Database) -> None:
        self._database = database
        self.store: Store = PostgresStore(database)

    async def add_project(self, project_id: str) -> int:
        async with self._database.transaction() as conn:
            await conn.execute("INSERT INTO project (id, name) VALUES ($1, 'P')", project_id)
            await conn.execute("INSERT INTO system (project_id, id, name) VALUES ($1, 's', 'S')", project_id)
            await conn.execute(
                "INSERT INTO blueprint (project_id, id, name, revision) VALUES ($1, 'b', 'B', 1)", project_id
            )
            await conn.execute(
                """INSERT INTO network (project_id, id, name, alias_key, codec, revision)
                   VALUES ($1, $2, 'N', $3, '{}', 1)""",
                project_id,
                NETWORK,
                ALIAS_KEY,
            )
            return await sources.add(conn, project_id, "rest")

    async def add_device(self, project_id: str, alias: str) -> int:
        async with self._database.transaction() as conn:
            revision = await conn.fetchval(
                "UPDATE project SET revision = revision + 1 WHERE id = $1 RETURNING revision", project_id
            )
            device_id: int = await conn.fetchval(
                """INSERT INTO device (project_id, system_id, blueprint_id, name, revision)
                   VALUES ($1, 's', 'b', 'D', $2) RETURNING id""",
                project_id,
                revision,
            )
            await conn.execute(
                """INSERT INTO alias (project_id, network_id, alias_key, alias, device_id, place)
                   VALUES ($1, $2, $3, $4, $5, 0)""",
                project_id,
                NETWORK,
                ALIAS_KEY,
                alias,
                device_id,
            )
            return device_id

    async def remove_device(self, project_id: str, alias: str) -> None:
        async with self._database.transaction() as conn:
            await conn.execute("UPDATE project SET revision = revision + 1 WHERE id = $1", project_id)
            await conn.execute(
                """DELETE FROM device USING alias a
                   WHERE device.id = a.device_id AND a.project_id = $1 AND a.alias = $2""",
                project_id,
                alias,
            )

    async def fates(self, hop: str, source_id: int, epoch: int) -> dict[str, int]:
        async with self._database.connection() as conn:
            row = await conn.fetchrow(
                f"""SELECT {", ".join(FATES)} FROM hop_progress
                    WHERE hop = $1 AND source_id = $2 AND epoch = $3""",
                hop,
                source_id,
                epoch,
            )
        return {fate: number for fate, number in (row or {}).items() if number}

    async def history(self, project_id: str, device_id: int) -> list[HistoryRow]:
        async with self._database.connection() as conn:
            return await history.page(conn, project_id, device_id, 0, 2**53, limit=1000)

    async def current(self, project_id: str, device_id: int) -> list[CurrentRow]:
        async with self._database.connection() as conn:
            return await current.of_device(conn, project_id, device_id)

    async def inbox(self, project_id: str) -> list[InboxRow]:
        async with self._database.connection() as conn:
            return await inbox.page(conn, project_id, limit=1000)

    async def rejects(self, project_id: str) -> list[RejectRow]:
        async with self._database.connection() as conn:
            return await rejects.page(conn, project_id, limit=1000)

    async def misfits(self, project_id: str) -> list[tuple[bytes, str, int]]:
        async with self._database.connection() as conn:
            found = await conn.fetch(
                "SELECT id, reason, count FROM misfit WHERE project_id = $1 ORDER BY seq", project_id
            )
        return [(row["id"].bytes, row["reason"], row["count"]) for row in found]

    async def want_replay(self, project_id: str, wanted: RejectFilter) -> None:
        async with self._database.transaction() as conn:
            await reject_replays.create(conn, project_id, wanted)

    async def dead_letters(self, project_id: str) -> list[DeadLetter]:
        async with self._database.connection() as conn:
            found = await conn.fetch(
                "SELECT hop, topic, detail, data FROM dead_letter WHERE project_id = $1 ORDER BY seq", project_id
            )
        return [DeadLetter(**dict(row)) for row in found]

    async def add_command(self, project_id: str, device_id: int) -> str:
        async with self._database.transaction() as conn:
            row = await commands.create(
                conn, project_id, device_id, name="restart", payload=b"", deadline=2**40, now_ms=0
            )
        return str(row.id)

    async def command(self, project_id: str, device_id: int, command_id: str) -> tuple[Standing, bytes | None]:
        async with self._database.connection() as conn:
            row = await commands.get(conn, project_id, device_id, uuid.UUID(command_id))
        return row.standing, row.answer

    async def presence(self, project_id: str, device_id: int) -> tuple[bool, str, int] | None:
        async with self._database.connection() as conn:
            row = await presence.of_device(conn, project_id, device_id)
        return None if row is None else (row.online, row.reason, row.since)


class FailedError(Exception):
    """What the work of a transaction raises here."""


class Held:
    """A transaction that has done its part and stays open until it is told how to end."""

    def __init__(self, premises: Premises, work: Callable[[Transaction], Awaitable[object]]) -> None:
        self._worked = asyncio.Event()
        self._end: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.ensure_future(premises.store.run(lambda tx: self._run(tx, work)))

    async def _run(self, tx: Transaction, work: Callable[[Transaction], Awaitable[object]]) -> None:
        await work(tx)
        self._worked.set()
        error = await self._end
        if error is not None:
            raise error

    async def worked(self) -> Held:
        async with asyncio.timeout(DEADLINE_S):
            await self._worked.wait()
        return self

    async def commit(self) -> None:
        self._end.set_result(None)
        await self._task

    async def fail(self) -> None:
        self._end.set_result(FailedError())
        with pytest.raises(FailedError):
            await self._task


async def waits(task: asyncio.Future[object]) -> bool:
    """Whether it is still not done when others have had their turn: another statement, there and back."""
    done, _ = await asyncio.wait((task,), timeout=0.2)
    return not done


def take(hop: str, *runs: Run, **fates: int) -> Callable[[Transaction], Awaitable[Claim]]:
    """Work: claims the runs and settles them, with these fates on the first one's source."""

    async def work(tx: Transaction) -> Claim:
        claim = await tx.claim(hop, runs)
        for fate, number in fates.items():
            claim.count(runs[0].source_id, runs[0].epoch, fate, number)
        await tx.settle(claim)
        return claim

    return work
