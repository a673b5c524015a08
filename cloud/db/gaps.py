"""Gaps: the records of the hop `gap`, with what is known of each loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import asyncpg
import msgspec

from cloud.db.database import Connection
from protocols.messages import Gap, GapKind

_COLUMNS: Final = ("epoch", "first_seq", "end_seq", "kind", "oldest_ms", "newest_ms", "noticed_ms", "size_bytes")
_SELECT: Final = f"SELECT {', '.join(_COLUMNS)} FROM gap"


class GapRow(msgspec.Struct, frozen=True):
    seq: int
    gateway_id: str | None
    gap: Gap


async def within(conn: Connection, source_id: int, epoch: int, first_seq: int, end_seq: int) -> list[Gap]:
    """Those that have a record in [first_seq, end_seq), and tails at first_seq to end_seq, both included, in order."""
    found = await conn.fetch(
        f"""{_SELECT} WHERE source_id = $1 AND epoch = $2 AND first_seq <= $4 AND end_seq >= $3
            AND (kind = 'tail' OR first_seq < $4 AND end_seq > $3) ORDER BY first_seq, end_seq""",
        source_id,
        epoch,
        first_seq,
        end_seq,
    )
    return [_gap(row) for row in found]


async def tail_before(conn: Connection, source_id: int, epoch: int, seq: int) -> Gap | None:
    """The tail that a record of that number would have been in, if it was written at all."""
    row = await conn.fetchrow(
        f"""{_SELECT} WHERE source_id = $1 AND epoch = $2 AND kind = 'tail' AND first_seq <= $3
            ORDER BY first_seq DESC LIMIT 1""",
        source_id,
        epoch,
        seq,
    )
    return None if row is None else _gap(row)


async def about(conn: Connection, project_id: str, from_ms: int, to_ms: int, limit: int) -> list[tuple[str, Gap]]:
    """(gateway id, gap): those that have records that were received in that time, about."""
    found = await conn.fetch(
        f"""SELECT s.gateway_id, {", ".join(f"g.{name}" for name in _COLUMNS)}
            FROM gap g JOIN source s ON s.id = g.source_id
            WHERE s.project_id = $1 AND g.oldest_ms <= $3 AND g.newest_ms >= $2 AND s.gateway_id IS NOT NULL
            ORDER BY g.seq DESC LIMIT $4""",
        project_id,
        from_ms,
        to_ms,
        limit,
    )
    return [(row["gateway_id"], _gap(row)) for row in found]


async def during(conn: Connection, project_id: str, from_ms: int, to_ms: int, limit: int) -> list[tuple[str, Gap]]:
    """(gateway id, gap), the newest first: those with records of [from_ms, to_ms), or where that is not known, that
    were noticed then."""
    found = await conn.fetch(
        f"""SELECT s.gateway_id, {", ".join(f"g.{name}" for name in _COLUMNS)}
            FROM gap g JOIN source s ON s.id = g.source_id
            WHERE s.project_id = $1 AND s.gateway_id IS NOT NULL
              AND coalesce(nullif(g.oldest_ms, 0), g.noticed_ms) < $3
              AND coalesce(nullif(g.newest_ms, 0), g.noticed_ms) >= $2 ORDER BY g.seq DESC LIMIT $4""",
        project_id,
        from_ms,
        to_ms,
        limit,
    )
    return [(row["gateway_id"], _gap(row)) for row in found]


async def add(conn: Connection, source_id: int, gaps: Sequence[Gap]) -> None:
    """They hold no record that another one holds."""
    await conn.executemany(
        f"""INSERT INTO gap (source_id, {", ".join(_COLUMNS)}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)""",
        [(source_id, *msgspec.structs.astuple(gap)) for gap in gaps],
    )


async def remove(conn: Connection, source_id: int, gaps: Sequence[Gap]) -> None:
    await conn.executemany(
        """DELETE FROM gap WHERE source_id = $1 AND epoch = $2 AND first_seq = $3
           AND (kind = 'tail') = ($4::text = 'tail')""",
        [(source_id, gap.epoch, gap.first_seq, gap.kind) for gap in gaps],
    )


async def page(conn: Connection, project_id: str, *, after: int | None = None, limit: int) -> list[GapRow]:
    """Newest first; those older than number `after` only."""
    found = await conn.fetch(
        f"""SELECT g.seq, s.gateway_id, {", ".join(f"g.{name}" for name in _COLUMNS)}
            FROM gap g JOIN source s ON s.id = g.source_id
            WHERE s.project_id = $1 AND ($2::bigint IS NULL OR g.seq < $2) ORDER BY g.seq DESC LIMIT $3""",
        project_id,
        after,
        limit,
    )
    return [GapRow(row["seq"], row["gateway_id"], _gap(row)) for row in found]


def _gap(row: asyncpg.Record) -> Gap:
    return Gap(
        row["epoch"], row["first_seq"], row["end_seq"], GapKind(row["kind"]), row["oldest_ms"], row["newest_ms"],
        row["noticed_ms"], row["size_bytes"],
    )  # fmt: skip
