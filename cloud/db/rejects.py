"""Records that did not decode, with their bytes and the reason."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final

import asyncpg
import msgspec

from cloud.db.database import Connection
from cloud.db.errors import NotFoundError
from cloud.model.rejected import UNKNOWN_CLOCK, RejectFilter, RejectRow
from protocols.messages import Clock, ClockState
from protocols.shipment import Reject, Run

_COLUMNS: Final = (
    "project_id",
    "source_id",
    "epoch",
    "record_seq",
    "network_id",
    "alias_key",
    "alias",
    "topic",
    "code",
    "detail",
    "received_time",
    "payload",
    "codec",
    "clock_boot",
    "clock_offset_ms",
    "clock_state",
    "late",
    "metadata",
)


_SELECTED: Final = ", ".join(("seq", *_COLUMNS[1:]))
_WANTED: Final = """project_id = $1 AND ($2::text IS NULL OR network_id = $2) AND ($3::text IS NULL OR code = $3)
    AND ($4::bigint IS NULL OR received_time >= $4) AND ($5::bigint IS NULL OR received_time < $5)"""
EVERY: Final = RejectFilter()


async def add(conn: Connection, project_id: str, rejected: Sequence[tuple[Run, int, Reject]]) -> None:
    """`rejected`: the run, the record's seq, and what is wrong with it."""
    await conn.copy_records_to_table(
        "reject",
        records=[
            (
                project_id, run.source_id, run.epoch, seq, reject.network_id, reject.alias_key, reject.alias,
                reject.topic, reject.code, reject.detail, reject.received_time, reject.payload, reject.codec,
                *_clock_columns(reject.clock), reject.late, reject.metadata,
            )
            for run, seq, reject in rejected
        ],
        columns=_COLUMNS,
    )  # fmt: skip


async def page(
    conn: Connection,
    project_id: str,
    wanted: RejectFilter = EVERY,
    *,
    after: int | None = None,
    limit: int,
) -> list[RejectRow]:
    """Newest first; those older than number `after` only."""
    found = await conn.fetch(
        f"""SELECT {_SELECTED} FROM reject WHERE {_WANTED} AND ($6::bigint IS NULL OR seq < $6)
            ORDER BY seq DESC LIMIT $7""",
        *_arguments(project_id, wanted),
        after,
        limit,
    )
    return [_row(row) for row in found]


async def get(conn: Connection, project_id: str, seq: int) -> RejectRow:
    """Raises NotFoundError."""
    row = await conn.fetchrow(f"SELECT {_SELECTED} FROM reject WHERE project_id = $1 AND seq = $2", project_id, seq)
    if row is None:
        raise NotFoundError("reject", str(seq))
    return _row(row)


async def count(conn: Connection, project_id: str, wanted: RejectFilter) -> tuple[int, int]:
    """How many there are, and the number of the newest."""
    (row,) = await conn.fetch(
        f"SELECT count(*) AS records, coalesce(max(seq), 0) AS newest FROM reject WHERE {_WANTED}",
        *_arguments(project_id, wanted),
    )
    return row["records"], row["newest"]


async def waiting(
    conn: Connection,
    project_id: str,
    wanted: RejectFilter,
    position: int,
    through_seq: int,
    *,
    limit: int,
    bytes_max: int,
) -> list[RejectRow]:
    """Those behind number `position`, in order, locked: up to `limit`, of payloads of `bytes_max` together, but one at
    least, unless there are none. What another transaction takes away meanwhile is missing."""
    while True:
        found = await conn.fetch(
            f"""SELECT seq, octet_length(payload) AS size FROM reject WHERE {_WANTED} AND seq > $6 AND seq <= $7
                ORDER BY seq LIMIT $8""",
            *_arguments(project_id, wanted),
            position,
            through_seq,
            limit,
        )
        sizes = itertools.accumulate(row["size"] for row in found)
        seqs = [
            row["seq"]
            for place, (row, size) in enumerate(zip(found, sizes, strict=True))
            if not place or size <= bytes_max
        ]
        rows = await conn.fetch(
            f"SELECT {_SELECTED} FROM reject WHERE seq = ANY($1::bigint[]) ORDER BY seq FOR UPDATE", seqs
        )
        if rows or not seqs:  # else another transaction had them, and took them all away
            return [_row(row) for row in rows]


async def remove(conn: Connection, seqs: Sequence[int]) -> None:
    """They have decoded."""
    await conn.execute("DELETE FROM reject WHERE seq = ANY($1::bigint[])", seqs)


async def renew(conn: Connection, reasons: Sequence[tuple[int, str, str]]) -> None:
    """(seq, code, detail): why they do not decode by now."""
    await conn.execute(
        """UPDATE reject SET code = n.code, detail = n.detail
           FROM unnest($1::bigint[], $2::text[], $3::text[]) AS n (seq, code, detail) WHERE reject.seq = n.seq""",
        *([reason[place] for reason in reasons] for place in range(3)),
    )


class RejectGroup(msgspec.Struct, frozen=True):
    network_id: str
    alias_key: str
    alias: str
    code: str
    records: int
    first_received: int
    last_received: int
    last_detail: str


GROUPS_MAX: Final = 1000
"""Names and reasons that are shown, the latest first: more than anybody mends in one go."""


async def groups(conn: Connection, project_id: str) -> list[RejectGroup]:
    """By who sent them and what is wrong."""
    found = await conn.fetch(
        """SELECT network_id, alias_key, alias, code, count(*) AS records, min(received_time) AS first_received,
           max(received_time) AS last_received, (array_agg(detail ORDER BY seq DESC))[1] AS last_detail
           FROM reject WHERE project_id = $1 GROUP BY 1, 2, 3, 4 ORDER BY 7 DESC, 1, 2, 3, 4 LIMIT $2""",
        project_id,
        GROUPS_MAX,
    )
    return [RejectGroup(**dict(row)) for row in found]


def _clock_columns(clock: Clock | None) -> tuple[int | None, int | None, int | None]:
    return (None, None, None) if clock is None else (clock.boot, clock.offset_ms, int(clock.state))


def _row(row: asyncpg.Record) -> RejectRow:
    fields = dict(row)
    boot, offset_ms, state = (fields.pop(name) for name in ("clock_boot", "clock_offset_ms", "clock_state"))
    clock = UNKNOWN_CLOCK if boot is None else Clock(boot, offset_ms, ClockState(state))
    return RejectRow(clock=clock, **fields)


def _arguments(project_id: str, wanted: RejectFilter) -> tuple[object, ...]:
    return project_id, wanted.network_id, wanted.code, wanted.since_ms, wanted.until_ms
