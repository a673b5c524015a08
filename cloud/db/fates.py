"""What is stored about records whose messages are known (cloud/model/fate.py): each table is asked once, by a key."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Final

from cloud.db.database import Connection
from cloud.model.fate import Foreseen, Found
from protocols.ids import INDEX_BITS, record_message_id, record_of
from protocols.shipment import Run

_ROWS: Final = """
    SELECT asked.record_seq, coalesce(h.record, h.id) = asked.carrier AS own
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::uuid[], $5::uuid[])
         AS asked (record_seq, device_id, event_time, id, carrier)
    LEFT JOIN message_key k ON k.id = asked.id AND asked.id <> asked.carrier
    JOIN history h ON h.device_id = asked.device_id AND h.event_time = coalesce(k.event_time, asked.event_time)
                  AND h.id = asked.id"""


async def found(conn: Connection, run: Run, messages: Sequence[Foreseen]) -> Found:
    """The caller's transaction is repeatable read: all of it is of one moment."""
    end = run.first_seq + run.count
    first = uuid.UUID(bytes=record_message_id(run.epoch, run.first_seq, 0))
    last = uuid.UUID(bytes=record_message_id(run.epoch, end - 1, (1 << INDEX_BITS) - 1))
    rejected = await conn.fetch(
        "SELECT record_seq FROM reject WHERE source_id = $1 AND epoch = $2 AND record_seq >= $3 AND record_seq < $4",
        run.source_id,
        run.epoch,
        run.first_seq,
        end,
    )
    waiting = await conn.fetch(
        "SELECT record FROM inbox WHERE source_id = $1 AND record BETWEEN $2 AND $3", run.source_id, first, last
    )
    dead = await conn.fetch(
        """SELECT n.seq FROM dead_letter d JOIN generate_series($3::bigint, $4::bigint - 1) AS n (seq)
           ON d.records @> n.seq WHERE d.source_id = $1 AND d.epoch = $2""",
        run.source_id,
        run.epoch,
        run.first_seq,
        end,
    )
    known = [message for message in messages if message.device_id]
    rows = await conn.fetch(
        _ROWS,
        [message.record_seq for message in known],
        [message.device_id for message in known],
        [message.event_time for message in known],
        [uuid.UUID(bytes=message.id) for message in known],
        [uuid.UUID(bytes=message.carrier) for message in known],
    )
    return Found(
        rejected={row["record_seq"] for row in rejected},
        dead={row["seq"] for row in dead},
        unresolved={name.seq for row in waiting if (name := record_of(row["record"].bytes)) is not None},
        stored={row["record_seq"] for row in rows if row["own"]},
        repeated={row["record_seq"] for row in rows if not row["own"]},
    )
