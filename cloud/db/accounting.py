"""What the accounting (cloud/model/accounting.py) is made from: the hops' ranges and fates, all of one moment."""

from __future__ import annotations

from typing import Any, Final

from cloud.db.database import Connection
from cloud.model.accounting import SourceAccount, account
from cloud.model.claim import FATES


def _count(ranges: str) -> str:
    """SQL: how many numbers a multirange holds."""
    return f"(SELECT coalesce(sum(upper(r) - lower(r)), 0) FROM unnest({ranges}) r)"


_BY_SOURCE: Final = f"""
    WITH wanted AS (
        SELECT * FROM source WHERE $1::text IS NULL OR project_id = $1
    ), spans AS (
        SELECT source_id, epoch,
               coalesce(range_agg(done) FILTER (WHERE hop = 'receiver'), '{{}}') AS received,
               coalesce(range_agg(done) FILTER (WHERE hop = 'processor'), '{{}}') AS processed,
               coalesce(range_agg(done) FILTER (WHERE hop IN ('processor', 'inbox')), '{{}}') AS sent,
               coalesce(range_agg(done) FILTER (WHERE hop = 'transponder'), '{{}}') AS written
        FROM hop_progress WHERE source_id IN (SELECT id FROM wanted) GROUP BY source_id, epoch
    ), waiting AS (
        SELECT source_id,
               sum({_count("received - processed")}) AS in_pipeline,
               sum({_count("processed - received")}) AS processor_ahead,
               sum({_count("sent - written")}) AS at_writer
        FROM spans GROUP BY source_id
    ), fates AS (
        SELECT source_id, {", ".join(f"sum({fate})::bigint AS {fate}" for fate in FATES)}
        FROM hop_progress WHERE source_id IN (SELECT id FROM wanted) GROUP BY source_id
    )
    SELECT s.project_id, s.id AS source_id, s.kind, s.gateway_id,
           {", ".join(f"coalesce(f.{fate}, 0) AS {fate}" for fate in FATES)},
           coalesce(w.in_pipeline, 0)::bigint AS records_in_pipeline,
           coalesce(w.processor_ahead, 0)::bigint AS processor_ahead,
           coalesce(w.at_writer, 0)::bigint AS records_at_writer
    FROM wanted s LEFT JOIN fates f ON f.source_id = s.id LEFT JOIN waiting w ON w.source_id = s.id
    ORDER BY s.project_id, s.id"""


async def by_source(conn: Connection, project_id: str | None) -> list[SourceAccount]:
    """One account a source of the project, or of all; one statement, so that all of it is of one moment."""
    return [_account(dict(row)) for row in await conn.fetch(_BY_SOURCE, project_id)]


def _account(row: dict[str, Any]) -> SourceAccount:
    return account(
        row["project_id"],
        row["source_id"],
        row["kind"],
        row["gateway_id"],
        {fate: row[fate] for fate in FATES},
        records_in_pipeline=row["records_in_pipeline"],
        records_at_writer=row["records_at_writer"],
        processor_ahead=row["processor_ahead"],
    )
