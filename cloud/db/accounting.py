"""The accounting: what became of each source's records and messages.

A hop publishes before it commits, so the next one may have committed its part of a batch first; after a crash between
the two, for as long as the redelivery takes. The ranges show what the later hop has, and that proves what the earlier
one is about to count: a record that the processor has done is accepted, a message that is stored was decoded and is
not unresolved. The account says so at once, and the equations hold at every moment.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from cloud.db.database import Connection
from cloud.model.claim import FATES, INBOX_EPOCH


class SourceAccount(msgspec.Struct, frozen=True):
    """The cloud's accounting of one source; each equation holds at any moment.

    Records: accepted = decoded_records + rejected_records + dead_records + records_in_pipeline.
    Messages: decoded = stored + repeated + unresolved + rejected + stopped + dead + in_pipeline.
    """

    source_id: int
    kind: str
    gateway_id: str | None
    accepted: int
    decoded_records: int
    rejected_records: int
    dead_records: int
    records_in_pipeline: int
    """Accepted by the receiver, not done by the processor: found from the ranges of both."""
    decoded: int
    stored: int
    repeated: int
    unresolved: int
    rejected: int
    stopped: int
    dead: int
    in_pipeline: int
    records_at_writer: int
    """Done by the processor or replayed from the inbox, not done by the transponder: found from the ranges."""
    writer_ahead: int
    """Done by the transponder, not committed yet by who sent it: found from the ranges."""

    @property
    def closed(self) -> bool:
        """Whether both equations hold, and *in pipeline*, found two ways, agrees on being nothing."""
        records = self.decoded_records + self.rejected_records + self.dead_records + self.records_in_pipeline
        moving = self.records_at_writer > 0 or self.writer_ahead > 0
        return self.accepted == records and self.in_pipeline >= 0 and (moving or self.in_pipeline == 0)


def _count(ranges: str) -> str:
    """SQL: how many numbers a multirange holds."""
    return f"(SELECT coalesce(sum(upper(r) - lower(r)), 0) FROM unnest({ranges}) r)"


_BY_SOURCE: Final = f"""
    WITH spans AS (
        SELECT source_id, epoch,
               coalesce(range_agg(done) FILTER (WHERE hop = 'receiver'), '{{}}') AS received,
               coalesce(range_agg(done) FILTER (WHERE hop = 'processor'), '{{}}') AS processed,
               coalesce(range_agg(done) FILTER (WHERE hop IN ('processor', 'inbox')), '{{}}') AS sent,
               coalesce(range_agg(done) FILTER (WHERE hop = 'transponder'), '{{}}') AS written
        FROM hop_progress GROUP BY source_id, epoch
    ), waiting AS (
        SELECT source_id,
               sum({_count("received - processed")}) AS in_pipeline,
               sum({_count("processed - received")}) AS processor_ahead,
               sum({_count("sent - written")}) AS at_writer,
               sum({_count("written - sent")}) AS writer_ahead
        FROM spans GROUP BY source_id
    ), replayed AS (
        SELECT i.source_id, count(*) AS ahead FROM inbox i JOIN spans s ON s.source_id = i.source_id
        WHERE s.epoch = {INBOX_EPOCH} AND i.replay_seq IS NOT NULL AND i.replay_seq <@ s.written GROUP BY i.source_id
    ), fates AS (
        SELECT source_id, {", ".join(f"sum({fate})::bigint AS {fate}" for fate in FATES)}
        FROM hop_progress GROUP BY source_id
    )
    SELECT s.id AS source_id, s.kind, s.gateway_id, {", ".join(f"coalesce(f.{fate}, 0) AS {fate}" for fate in FATES)},
           coalesce(w.in_pipeline, 0)::bigint AS records_in_pipeline,
           coalesce(w.processor_ahead, 0)::bigint AS processor_ahead,
           coalesce(w.at_writer, 0)::bigint AS records_at_writer,
           coalesce(w.writer_ahead, 0)::bigint AS writer_ahead, coalesce(i.ahead, 0) AS replayed_ahead
    FROM source s LEFT JOIN fates f ON f.source_id = s.id LEFT JOIN waiting w ON w.source_id = s.id
    LEFT JOIN replayed i ON i.source_id = s.id
    WHERE s.project_id = $1 ORDER BY s.id"""

_ENDS: Final = ("stored", "repeated", "unresolved", "rejected", "stopped", "dead")


async def by_source(conn: Connection, project_id: str) -> list[SourceAccount]:
    """One account a source of the project; one statement, so that all of it is of one moment."""
    return [_account(dict(row)) for row in await conn.fetch(_BY_SOURCE, project_id)]


def _account(row: dict[str, Any]) -> SourceAccount:
    row["accepted"] += row.pop("processor_ahead")
    replayed_ahead = row.pop("replayed_ahead")
    too_many = max(0, sum(row[fate] for fate in _ENDS) - row["decoded"])
    replayed = min(too_many, replayed_ahead)
    row["unresolved"] -= replayed
    if row["writer_ahead"]:
        row["decoded"] += too_many - replayed
    row["writer_ahead"] += replayed_ahead
    return SourceAccount(**row, in_pipeline=row["decoded"] - sum(row[fate] for fate in _ENDS))
