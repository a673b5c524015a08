"""The pipeline's store (cloud/services/store.py) in PostgreSQL."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TypeVar

from cloud.db import (
    anchors,
    commands,
    current,
    dead_letters,
    gaps,
    history,
    imports,
    inbox,
    jobs,
    misfits,
    presence,
    progress,
    reject_replays,
    rejects,
    revision,
    rollups,
    sources,
    unsent,
)
from cloud.db.database import Connection, Database
from cloud.model.claim import Claim
from cloud.model.command import Answer
from cloud.model.dead import DeadLetter
from cloud.model.importing import Chunk, LineProblem
from cloud.model.job import Job
from cloud.model.output import Output, Unsent
from cloud.model.presence import Seen
from cloud.model.rejected import RejectReplay, RejectRow
from cloud.model.unresolved import InboxRow
from cloud.services.store import Transaction
from protocols.messages import Anchor, Gap, Lane
from protocols.shipment import MessageBatch, Reject, Run
from sync.link.server import unix_ms

T = TypeVar("T")


class PostgresTransaction:
    """A Transaction on a connection that is in one, read committed."""

    def __init__(self, conn: Connection, wall_ms: Callable[[], int]) -> None:
        self._conn = conn
        self._wall_ms = wall_ms

    async def claim(self, hop: str, runs: Sequence[Run], *, held: bool = True) -> Claim:
        return await progress.claim(self._conn, hop, runs, held=held)

    async def settle(self, claim: Claim) -> None:
        await progress.settle(self._conn, claim)

    async def projects(self, source_ids: Sequence[int]) -> dict[int, str]:
        return await sources.projects(self._conn, source_ids)

    async def newest_revision(self, project_id: str, *, held: bool) -> int:
        return await revision.newest(self._conn, project_id, held=held)

    async def keep_anchors(self, source_id: int, new: Sequence[Anchor]) -> None:
        await anchors.keep(self._conn, source_id, new)

    async def anchors(self, source_id: int, boots: Collection[int]) -> dict[int, list[Anchor]]:
        return await anchors.of_boots(self._conn, source_id, boots)

    async def gaps(self, source_id: int, epoch: int, first_seq: int, end_seq: int) -> list[Gap]:
        return await gaps.within(self._conn, source_id, epoch, first_seq, end_seq)

    async def add_gaps(self, source_id: int, new: Sequence[Gap]) -> None:
        await gaps.add(self._conn, source_id, new)

    async def remove_gaps(self, source_id: int, gone: Sequence[Gap]) -> None:
        await gaps.remove(self._conn, source_id, gone)

    async def add_unresolved(self, batch: MessageBatch, rows: Sequence[int]) -> None:
        await inbox.add(self._conn, batch, rows)

    async def replayable(self, limit: int) -> list[tuple[int, int]]:
        return await inbox.replayable(self._conn, limit)

    async def number(self, numbers: Sequence[tuple[int, int]]) -> None:
        await inbox.number(self._conn, numbers)

    async def numbered(self, limit: int) -> list[tuple[str, InboxRow]]:
        return await inbox.numbered(self._conn, limit)

    async def put_back(self, seqs: Sequence[int]) -> None:
        await inbox.put_back(self._conn, seqs)

    async def remove(self, seqs: Sequence[int]) -> None:
        await inbox.remove(self._conn, seqs)

    async def add_unsent(self, hop: str, lane: Lane, outputs: Sequence[Output]) -> list[int]:
        return await unsent.add(self._conn, hop, lane, outputs)

    async def unsent(self, hop: str, limit: int) -> list[Unsent]:
        return await unsent.oldest(self._conn, hop, limit)

    async def remove_unsent(self, numbers: Sequence[int]) -> None:
        await unsent.remove(self._conn, numbers)

    async def add_rejects(self, project_id: str, rejected: Sequence[tuple[Run, int, Reject]]) -> None:
        await rejects.add(self._conn, project_id, rejected)

    async def next_reject_replay(self) -> RejectReplay | None:
        return await reject_replays.take(self._conn)

    async def rejects_of(self, replay: RejectReplay, limit: int, bytes_max: int) -> list[RejectRow]:
        return await rejects.waiting(
            self._conn,
            replay.project_id,
            replay.wanted,
            replay.position,
            replay.through_seq,
            limit=limit,
            bytes_max=bytes_max,
        )

    async def remove_rejects(self, seqs: Sequence[int]) -> None:
        await rejects.remove(self._conn, seqs)

    async def renew_rejects(self, reasons: Sequence[tuple[int, str, str]]) -> None:
        await rejects.renew(self._conn, reasons)

    async def advance_reject_replay(self, replay: RejectReplay, *, is_finished: bool) -> None:
        await reject_replays.advance(self._conn, replay, is_finished=is_finished)

    async def next_dead_letter(
        self, project_id: str, position: int, through: int, hop: str | None, seq: int | None
    ) -> DeadLetter | None:
        return await dead_letters.next_one(self._conn, project_id, position, through, hop, seq)

    async def remove_dead_letter(self, seq: int) -> None:
        await dead_letters.remove(self._conn, seq)

    async def import_chunk(self, project_id: str, file_id: int, number: int) -> Chunk | None:
        return await imports.chunk(self._conn, project_id, file_id, number)

    async def add_import_problems(self, project_id: str, job: int, problems: Sequence[LineProblem]) -> None:
        await imports.add_problems(self._conn, project_id, job, problems)

    async def next_job(self, kinds: Collection[str]) -> Job | None:
        return await jobs.take(self._conn, kinds)

    async def advance_job(self, job: Job) -> None:
        await jobs.advance(self._conn, job)

    async def add_dead_letter(
        self, *, project_id: str, hop: str, topic: str, runs: Sequence[Run], detail: str, data: bytes
    ) -> None:
        await dead_letters.add(
            self._conn, project_id=project_id, hop=hop, topic=topic, runs=runs, detail=detail, data=data
        )

    async def answer_commands(self, project_id: str, answers: Sequence[Answer]) -> list[Answer]:
        return await commands.answer(self._conn, project_id, answers)

    async def note_presence(self, project_id: str, seen: Sequence[Seen]) -> None:
        await presence.note(self._conn, project_id, seen)

    async def ensure_partitions(self, now_ms: int) -> None:
        await history.ensure_partitions(self._conn, now_ms)

    async def store(self, batch: MessageBatch, rows: Sequence[int]) -> list[int]:
        fresh = await history.store(self._conn, batch, rows)
        await rollups.mark(self._conn, batch, fresh, self._wall_ms())
        return fresh

    async def update_current(self, batch: MessageBatch, rows: Sequence[int]) -> None:
        await current.update(self._conn, batch, rows)

    async def add_misfits(self, batch: MessageBatch, rows: Sequence[int]) -> None:
        await misfits.add(self._conn, batch, rows)


class PostgresStore:
    def __init__(self, database: Database, wall_ms: Callable[[], int] = unix_ms) -> None:
        """`wall_ms`: the time, Unix milliseconds."""
        self._database = database
        self._wall_ms = wall_ms

    async def run(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        return await self._database.run(lambda conn: work(PostgresTransaction(conn, self._wall_ms)))
