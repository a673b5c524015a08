"""How gateways stand, by their own last word, and up to when what they received is complete here."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from cloud.db.database import Connection
from cloud.db.progress import ranges_of
from cloud.model.standing import GatewayStanding
from protocols.ids import record_of
from sync.link.frames import Standing
from sync.ranges import Ranges

LAST_MESSAGES: Final = 32
"""Of a device, by which its gateways are found: one that moved from gateway to gateway has that long behind it."""

_standing: Final = msgspec.json.Decoder(Standing).decode


class Told(msgspec.Struct, frozen=True):
    """What is to be written of one gateway."""

    project_id: str
    gateway_id: str
    standing: Standing | None
    """None: nothing new."""
    complete_until: int | None
    """None: nothing new. Unix milliseconds."""


async def keep(conn: Connection, told: Sequence[Told]) -> None:
    """Many at once, in order, so that concurrent writers wait for each other instead of deadlocking."""
    await conn.execute(
        """UPDATE gateway SET
               standing = coalesce(t.standing, gateway.standing),
               standing_at = CASE WHEN t.standing IS NULL THEN gateway.standing_at ELSE now() END,
               complete_until = greatest(gateway.complete_until, t.complete_until)
           FROM (
               SELECT g.project_id, g.id, asked.standing, asked.complete_until
               FROM unnest($1::text[], $2::text[], $3::jsonb[], $4::bigint[])
                   AS asked (project_id, id, standing, complete_until)
               JOIN gateway g USING (project_id, id) ORDER BY g.project_id, g.id FOR UPDATE OF g
           ) AS t WHERE gateway.project_id = t.project_id AND gateway.id = t.id""",
        [one.project_id for one in told],
        [one.gateway_id for one in told],
        [None if one.standing is None else msgspec.json.encode(one.standing).decode() for one in told],
        [one.complete_until for one in told],
    )


async def unwritten(conn: Connection, source_ids: Collection[int]) -> dict[int, dict[int, Ranges]]:
    """By source, then by epoch: what the receiver has and the transponder has not. Those without any are missing."""
    found = await conn.fetch(
        """SELECT r.source_id, r.epoch, r.done - coalesce(w.done, '{}') AS waiting
           FROM hop_progress r LEFT JOIN hop_progress w
               ON w.source_id = r.source_id AND w.epoch = r.epoch AND w.hop = 'transponder'
           WHERE r.hop = 'receiver' AND r.source_id = ANY($1::bigint[]) AND NOT r.done <@ coalesce(w.done, '{}')""",
        list(source_ids),
    )
    by_source: dict[int, dict[int, Ranges]] = {}
    for row in found:
        by_source.setdefault(row["source_id"], {})[row["epoch"]] = ranges_of(row["waiting"])
    return by_source


async def of_gateway(conn: Connection, project_id: str, gateway_id: str) -> GatewayStanding | None:
    """None: there is no such gateway."""
    found = await _standings(conn, "g.project_id = $1 AND g.id = $2", project_id, gateway_id)
    return found[0] if found else None


async def of_project(conn: Connection, project_id: str | None) -> list[GatewayStanding]:
    """All gateways of a project, or of all, in order."""
    return await _standings(conn, "$1::text IS NULL OR g.project_id = $1", project_id)


async def carriers(conn: Connection, project_id: str, device_id: int) -> dict[int, str]:
    """Source id to gateway id, of those gateways that carried the device's last messages, the last one first."""
    rows = await conn.fetch(
        """SELECT coalesce(record, id) AS record FROM history WHERE project_id = $1 AND device_id = $2
           ORDER BY event_time DESC, id DESC LIMIT $3""",
        project_id,
        device_id,
        LAST_MESSAGES,
    )
    records = [record_of(row["record"].bytes) for row in rows]
    epochs = list(dict.fromkeys(record.epoch for record in records if record is not None))
    found = await conn.fetch(
        """SELECT DISTINCT s.id, s.gateway_id, p.epoch FROM hop_progress p JOIN source s ON s.id = p.source_id
           WHERE p.epoch = ANY($2::bigint[]) AND s.project_id = $1 AND s.gateway_id IS NOT NULL""",
        project_id,
        epochs,
    )
    return {row["id"]: row["gateway_id"] for row in sorted(found, key=lambda row: epochs.index(row["epoch"]))}


async def complete_until(conn: Connection, project_id: str, device_id: int) -> int | None:
    """Of a device: of those gateways that carried its last messages, the one that is furthest behind. None: there is
    none, or it has not told yet."""
    names = (await carriers(conn, project_id, device_id)).values()
    found = await conn.fetch(
        "SELECT complete_until FROM gateway WHERE project_id = $1 AND id = ANY($2::text[])", project_id, list(names)
    )
    told: list[int | None] = [row["complete_until"] for row in found]
    known = [until for until in told if until is not None]
    return min(known) if known and len(known) == len(told) else None


async def _standings(conn: Connection, condition: str, *values: object) -> list[GatewayStanding]:
    found = await conn.fetch(
        f"""SELECT g.project_id, g.id, g.standing, g.standing_at, g.complete_until FROM gateway g
            WHERE {condition} ORDER BY g.project_id, g.id""",
        *values,
    )
    return [
        GatewayStanding(
            row["project_id"],
            row["id"],
            None if row["standing"] is None else _standing(row["standing"]),
            row["standing_at"],
            row["complete_until"],
        )
        for row in found
    ]
