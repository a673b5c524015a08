"""The unresolved inbox: messages of unknown devices, until the device exists and they are replayed."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, Final

import asyncpg
import msgspec

from cloud.db.database import Connection
from cloud.db.errors import NotFoundError
from cloud.model.unresolved import InboxRow
from protocols.shipment import MessageBatch, carriers_of, record_places

_COLUMNS: Final = (
    "project_id",
    "source_id",
    "network_id",
    "alias_key",
    "alias",
    "id",
    "record",
    "flags",
    "time",
    "received_time",
    "event_time",
    "data",
    "payload",
    "time_error_ms",
)


class InboxGroup(msgspec.Struct, frozen=True):
    network_id: str
    alias_key: str
    alias: str
    messages: int
    first_received: int
    last_received: int
    newest: int
    """Number of the newest message."""
    data: bytes
    payload: bytes
    """Both of the newest."""


async def add(conn: Connection, batch: MessageBatch, rows: Sequence[int]) -> None:
    """Keeps those rows of the batch, with the payloads of their records."""
    places = record_places(batch.runs)
    carriers = carriers_of(batch)
    values: list[tuple[Any, ...]] = []
    for i in rows:
        target, (run, _) = batch.targets[batch.target_index[i]], places[batch.record[i]]
        values.append(
            (
                target.project_id, run.source_id, target.network_id, target.alias_key, target.alias,
                uuid.UUID(bytes=batch.ids[16 * i : 16 * i + 16]),
                uuid.UUID(bytes=carriers[i]), batch.flags[i],
                batch.time[i], batch.received_time[i], batch.event_time[i], batch.data[i], batch.payloads[i],
                batch.time_error_ms[i] if batch.time_error_ms else None,
            )
        )  # fmt: skip
    await conn.copy_records_to_table("inbox", records=values, columns=_COLUMNS)


async def replayable(conn: Connection, limit: int) -> list[tuple[int, int]]:
    """(source id, seq) of messages without a replay number whose device exists by now, in order; locked."""
    found = await conn.fetch(
        """SELECT i.source_id, i.seq FROM inbox i JOIN alias a USING (project_id, network_id, alias_key, alias)
           WHERE i.replay_seq IS NULL ORDER BY i.source_id, i.seq LIMIT $1 FOR UPDATE OF i SKIP LOCKED""",
        limit,
    )
    return [(row["source_id"], row["seq"]) for row in found]


async def number(conn: Connection, numbers: Sequence[tuple[int, int]]) -> None:
    """(seq, replay number): their place in the replay."""
    await conn.execute(
        """UPDATE inbox SET replay_seq = n.replay_seq FROM unnest($1::bigint[], $2::bigint[]) AS n (seq, replay_seq)
           WHERE inbox.seq = n.seq""",
        [seq for seq, _ in numbers],
        [replay_seq for _, replay_seq in numbers],
    )


async def numbered(conn: Connection, limit: int) -> list[tuple[str, InboxRow]]:
    """(project id, message) of numbered messages that wait for their replay, locked, each source's in order."""
    found = await conn.fetch(
        """SELECT * FROM inbox WHERE replay_seq IS NOT NULL ORDER BY source_id, replay_seq LIMIT $1 FOR UPDATE""", limit
    )
    return [(row["project_id"], _row(row)) for row in found]


async def put_back(conn: Connection, seqs: Sequence[int]) -> None:
    """Their device is gone again: they wait as before."""
    await conn.execute("UPDATE inbox SET replay_seq = NULL WHERE seq = ANY($1::bigint[])", seqs)


async def remove(conn: Connection, seqs: Sequence[int]) -> None:
    """They were replayed."""
    await conn.execute("DELETE FROM inbox WHERE seq = ANY($1::bigint[])", seqs)


async def page(conn: Connection, project_id: str, *, after: int | None = None, limit: int) -> list[InboxRow]:
    """Newest first; those older than number `after` only."""
    found = await conn.fetch(
        "SELECT * FROM inbox WHERE project_id = $1 AND ($2::bigint IS NULL OR seq < $2) ORDER BY seq DESC LIMIT $3",
        project_id,
        after,
        limit,
    )
    return [_row(row) for row in found]


_GROUPS: Final = """
    SELECT g.*, i.data, i.payload FROM (
        SELECT network_id, alias_key, alias, count(*) AS messages, min(received_time) AS first_received,
               max(received_time) AS last_received, max(seq) AS newest FROM inbox
        WHERE project_id = $1 AND ($4::text IS NULL OR network_id = $4)
          AND ($5::text IS NULL OR alias_key = $5) AND ($6::text IS NULL OR alias = $6)
        GROUP BY 1, 2, 3 HAVING $2::bigint IS NULL OR max(seq) < $2 ORDER BY newest DESC LIMIT $3
    ) g JOIN inbox i ON i.seq = g.newest ORDER BY g.newest DESC"""


async def groups(
    conn: Connection, project_id: str, *, network_id: str | None = None, after: int | None = None, limit: int
) -> list[InboxGroup]:
    """By unknown name, who was heard last first; those whose newest message is older than number `after` only."""
    found = await conn.fetch(_GROUPS, project_id, after, limit, network_id, None, None)
    return [InboxGroup(**dict(row)) for row in found]


async def group(conn: Connection, project_id: str, network_id: str, alias_key: str, alias: str) -> InboxGroup:
    """Raises NotFoundError: nothing waits under that name."""
    found = await conn.fetch(_GROUPS, project_id, None, 1, network_id, alias_key, alias)
    if not found:
        raise NotFoundError("inbox group", ":".join((network_id, alias_key, alias)))
    return InboxGroup(**dict(found[0]))


def _row(row: asyncpg.Record) -> InboxRow:
    return InboxRow(
        row["seq"], row["source_id"], row["network_id"], row["alias_key"], row["alias"], row["id"].bytes,
        row["record"].bytes, row["flags"], row["time"], row["received_time"], row["event_time"], row["data"],
        row["payload"], row["replay_seq"], row["time_error_ms"],
    )  # fmt: skip
