"""Records that did not decode, with their bytes and the reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from cloud.db.database import Connection
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
)


class RejectRow(msgspec.Struct, frozen=True):
    seq: int
    source_id: int
    epoch: int
    record_seq: int
    network_id: str
    alias_key: str
    alias: str
    topic: str
    code: str
    detail: str
    received_time: int
    payload: bytes


async def add(conn: Connection, project_id: str, rejected: Sequence[tuple[Run, int, Reject]]) -> None:
    """`rejected`: the run, the record's seq, and what is wrong with it."""
    await conn.copy_records_to_table(
        "reject",
        records=[
            (
                project_id, run.source_id, run.epoch, seq, reject.network_id, reject.alias_key, reject.alias,
                reject.topic, reject.code, reject.detail, reject.received_time, reject.payload,
            )
            for run, seq, reject in rejected
        ],
        columns=_COLUMNS,
    )  # fmt: skip


async def page(conn: Connection, project_id: str, *, after: int | None = None, limit: int) -> list[RejectRow]:
    """Newest first; those older than number `after` only."""
    found = await conn.fetch(
        f"""SELECT seq, {", ".join(_COLUMNS[1:])} FROM reject
            WHERE project_id = $1 AND ($2::bigint IS NULL OR seq < $2) ORDER BY seq DESC LIMIT $3""",
        project_id,
        after,
        limit,
    )
    return [RejectRow(**dict(row)) for row in found]


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
