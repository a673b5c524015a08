"""Whether devices are there, as their gateways said last, and how it came to that."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Sequence
from typing import Final

import msgspec

from cloud.db.database import Connection
from cloud.model.presence import Seen

GONE_S: Final = 60.0
"""A gateway whose process here died is noted as connected for so long: four times as long as between two notes."""

_NEWER: Final = "(excluded.since, excluded.record) > (p.since, p.record)"


class PresenceRow(msgspec.Struct, frozen=True):
    """What the last word on a device was."""

    network_id: str
    alias_key: str
    alias: str
    gateway_id: str | None
    listener: str
    online: bool
    reason: str
    since: int
    gateway_seen_at: datetime.datetime | None
    gateway_is_there: bool
    """Whether that gateway is connected now."""


class EventRow(msgspec.Struct, frozen=True):
    seq: int
    device_id: int | None
    """Of the device that has this name now."""
    network_id: str
    alias_key: str
    alias: str
    gateway_id: str | None
    listener: str
    online: bool
    reason: str
    time: int


async def note(conn: Connection, project_id: str, seen: Sequence[Seen]) -> None:
    """The newest word on each name counts, by (time, record). Each is listed as an event."""
    ordered = sorted(seen, key=lambda one: (one.network_id, one.alias_key, one.alias, one.time, one.record))
    for one in ordered:
        record = uuid.UUID(bytes=one.record)
        if one.alias:
            values = (project_id, one.network_id, one.alias_key, one.alias, one.source_id, one.listener, one.online,
                      one.reason, one.time, record)  # fmt: skip
            await conn.execute(
                f"""INSERT INTO presence AS p (project_id, network_id, alias_key, alias, source_id, listener, online,
                        reason, since, record)
                    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
                    ON CONFLICT (project_id, network_id, alias_key, alias) DO UPDATE SET
                        source_id = excluded.source_id, listener = excluded.listener, online = excluded.online,
                        reason = excluded.reason, since = excluded.since, record = excluded.record
                    WHERE {_NEWER}""",
                *values,
            )
            await conn.execute(
                """INSERT INTO device_event (project_id, network_id, alias_key, alias, source_id, listener, online,
                       reason, time, record) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)""",
                *values,
            )
            continue
        await conn.execute(
            """WITH gone AS (
                   UPDATE presence SET online = false, reason = $5, since = $6, record = $7
                   WHERE project_id = $1 AND source_id = $2 AND listener = $3 AND network_id = $4 AND online
                   AND (since, record) < ($6, $7) RETURNING *)
               INSERT INTO device_event (project_id, network_id, alias_key, alias, source_id, listener, online, reason,
                   time, record)
               SELECT project_id, network_id, alias_key, alias, source_id, listener, false, reason, since, record
               FROM gone""",
            project_id,
            one.source_id,
            one.listener,
            one.network_id,
            one.reason,
            one.time,
            record,
        )


async def of_device(conn: Connection, project_id: str, device_id: int) -> PresenceRow | None:
    """By the name that is there, else the one that was heard of last. None: nobody has said anything."""
    row = await conn.fetchrow(
        """SELECT p.network_id, p.alias_key, p.alias, s.gateway_id, p.listener, p.online, p.reason, p.since,
                  g.last_seen_at AS gateway_seen_at,
                  coalesce(g.link_session IS NOT NULL AND g.last_seen_at > now() - make_interval(secs => $3), false)
                      AS gateway_is_there
           FROM alias a JOIN presence p USING (project_id, network_id, alias_key, alias)
           JOIN source s ON s.id = p.source_id
           LEFT JOIN gateway g ON g.project_id = s.project_id AND g.id = s.gateway_id
           WHERE a.project_id = $1 AND a.device_id = $2 ORDER BY p.online DESC, p.since DESC LIMIT 1""",
        project_id,
        device_id,
        GONE_S,
    )
    return None if row is None else PresenceRow(**dict(row))


async def last_received(conn: Connection, project_id: str, device_id: int) -> int | None:
    """When its newest message was received, Unix milliseconds. None: there is none."""
    found: int | None = await conn.fetchval(
        """SELECT received_time FROM history WHERE project_id = $1 AND device_id = $2
           ORDER BY event_time DESC, id DESC LIMIT 1""",
        project_id,
        device_id,
    )
    return found


async def page(
    conn: Connection, project_id: str, *, device_id: int | None = None, after: int | None = None, limit: int
) -> list[EventRow]:
    """Events, the newest first; those older than number `after` only."""
    found = await conn.fetch(
        """SELECT e.seq, a.device_id, e.network_id, e.alias_key, e.alias, s.gateway_id, e.listener, e.online, e.reason,
                  e.time
           FROM device_event e JOIN source s ON s.id = e.source_id
           LEFT JOIN alias a ON a.project_id = e.project_id AND a.network_id = e.network_id
               AND a.alias_key = e.alias_key AND a.alias = e.alias
           WHERE e.project_id = $1 AND ($2::bigint IS NULL OR a.device_id = $2) AND ($3::bigint IS NULL OR e.seq < $3)
           ORDER BY e.seq DESC LIMIT $4""",
        project_id,
        device_id,
        after,
        limit,
    )
    return [EventRow(**dict(row)) for row in found]
