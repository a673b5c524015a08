"""The accounting: what became of each source's records and messages."""

from __future__ import annotations

from typing import Final

import msgspec

from cloud.db.database import Connection
from cloud.db.progress import FATES


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

    @property
    def closed(self) -> bool:
        """Whether both equations hold, and *in pipeline*, found two ways, agrees on being nothing."""
        records = self.decoded_records + self.rejected_records + self.dead_records + self.records_in_pipeline
        return (
            self.accepted == records and self.in_pipeline >= 0 and (self.records_at_writer > 0 or self.in_pipeline == 0)
        )


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
               sum((SELECT coalesce(sum(upper(r) - lower(r)), 0) FROM unnest(received - processed) r)) AS in_pipeline,
               sum((SELECT coalesce(sum(upper(r) - lower(r)), 0) FROM unnest(sent - written) r)) AS at_writer
        FROM spans GROUP BY source_id
    ), fates AS (
        SELECT source_id, {", ".join(f"sum({fate})::bigint AS {fate}" for fate in FATES)}
        FROM hop_progress GROUP BY source_id
    )
    SELECT s.id AS source_id, s.kind, s.gateway_id, {", ".join(f"coalesce(f.{fate}, 0) AS {fate}" for fate in FATES)},
           coalesce(w.in_pipeline, 0)::bigint AS records_in_pipeline,
           coalesce(w.at_writer, 0)::bigint AS records_at_writer
    FROM source s LEFT JOIN fates f ON f.source_id = s.id LEFT JOIN waiting w ON w.source_id = s.id
    WHERE s.project_id = $1 ORDER BY s.id"""


async def by_source(conn: Connection, project_id: str) -> list[SourceAccount]:
    """One account a source of the project; one statement, so that all of it is of one moment."""
    accounts = []
    for row in await conn.fetch(_BY_SOURCE, project_id):
        ended = sum(row[fate] for fate in ("stored", "repeated", "unresolved", "rejected", "stopped", "dead"))
        accounts.append(SourceAccount(**dict(row), in_pipeline=row["decoded"] - ended))
    return accounts
