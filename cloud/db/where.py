"""What is stored of a message: the facts that cloud/model/where.py tells its place from. Each in one view of the
database: the caller's transaction is repeatable read."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from typing import Any, Final

import asyncpg
import msgspec

from cloud.db import gaps, standings
from cloud.db.database import Connection
from cloud.model.claim import INBOX_EPOCH
from cloud.model.standing import GatewayStanding
from cloud.model.traces import Dead, DeviceFacts, KeyedFacts, RecordFacts, Rejected, Row, Source, Waiting
from cloud.model.where import AROUND_MS
from protocols.ids import INDEX_BITS, RecordName, record_message_id
from protocols.messages import DEFAULT_ROUTE, Gap, Route
from sync.link.frames import RefusedSample
from sync.registry import Alias

ROWS_MAX: Final = 20
"""Messages of one answer: somebody who asks about one is not helped by more."""
FILED_AWAY_MS: Final = 24 * 3600 * 1000
"""A message that is asked for by the time that its device or gateway gave it may be filed under another one, so far
away: device clocks in local time are the usual reason."""
SAMPLE_AROUND_MS: Final = 5000
"""The same for what a gateway refused: its clock and the device's differ."""

_route: Final = msgspec.json.Decoder(Route).decode
_ROW: Final = "device_id, id, record, event_time, time, received_time, flags, time_error_ms"
_WAITING: Final = """
    SELECT i.network_id, i.alias_key, i.alias, i.id, i.event_time, i.received_time, i.replay_seq, a.device_id
    FROM inbox i LEFT JOIN alias a USING (project_id, network_id, alias_key, alias)"""


async def of_record(conn: Connection, project_id: str | None, name: RecordName, *, whole: bool = False) -> RecordFacts:
    """`project_id`: only of this project; None: of any. `whole`: of all messages of the record."""
    found = await _source(conn, project_id, name)
    if found is None:
        return RecordFacts(name=name, source=None)
    source_id, source, gateway = found
    first = record_message_id(name.epoch, name.seq, 0 if whole else name.index)
    last = record_message_id(name.epoch, name.seq, (1 << INDEX_BITS) - 1 if whole else name.index)
    ids = (uuid.UUID(bytes=first), uuid.UUID(bytes=last))
    done = {
        row["hop"]: row["has"]
        for row in await conn.fetch(
            "SELECT hop, done @> $3::bigint AS has FROM hop_progress WHERE source_id = $1 AND epoch = $2",
            source_id,
            name.epoch,
            name.seq,
        )
    }
    return RecordFacts(
        name=name,
        source=source,
        received=done.get("receiver", False),
        processed=done.get("processor", False),
        written=done.get("transponder", False),
        rows=await _rows(
            conn, "project_id = $1 AND (id BETWEEN $2 AND $3 OR record BETWEEN $2 AND $3)", source.project_id, *ids
        ),
        waiting=await _waiting(conn, "i.source_id = $1 AND i.record BETWEEN $2 AND $3", source_id, *ids),
        rejected=await _rejected(
            conn, "source_id = $1 AND epoch = $2 AND record_seq = $3", source_id, name.epoch, name.seq
        ),
        dead=await _dead(conn, source_id, name),
        gap=await _gap(conn, source_id, name),
        fates=await _fates(conn, source_id, name.epoch),
        replayed=await _replayed(conn, source_id),
        gateway=gateway,
    )


async def of_key(conn: Connection, project_id: str | None, message_id: bytes) -> KeyedFacts:
    """`project_id`: only of this project; None: of any."""
    wanted = uuid.UUID(bytes=message_id)
    taken = await conn.fetchrow(
        "SELECT project_id, event_time FROM message_key WHERE id = $1 AND ($2::text IS NULL OR project_id = $2)",
        wanted,
        project_id,
    )
    rows: Sequence[Row] = ()
    if taken is not None:
        condition = "project_id = $1 AND event_time = $2 AND id = $3"
        rows = await _rows(conn, condition, taken["project_id"], taken["event_time"], wanted)
    return KeyedFacts(
        rows=rows,
        waiting=await _waiting(conn, "i.id = $1 AND ($2::text IS NULL OR i.project_id = $2)", wanted, project_id),
        taken_ms=None if taken is None else taken["event_time"],
    )


async def of_device(conn: Connection, project_id: str, alias: Alias, time_ms: int) -> DeviceFacts:
    device = await conn.fetchrow(
        """SELECT a.device_id, coalesce(d.route, b.route) AS route FROM alias a
           JOIN device d ON d.id = a.device_id
           JOIN blueprint b ON b.project_id = d.project_id AND b.id = d.blueprint_id
           WHERE a.project_id = $1 AND a.network_id = $2 AND a.alias_key = $3 AND a.alias = $4""",
        project_id,
        *alias_parts(alias),
    )
    device_id = None if device is None else device["device_id"]
    network_known = device is not None or await conn.fetchval(
        "SELECT EXISTS (SELECT FROM network WHERE project_id = $1 AND id = $2)", project_id, alias.network_id
    )
    named = "project_id = $1 AND network_id = $2 AND alias_key = $3 AND alias = $4"
    around = (time_ms - AROUND_MS, time_ms + AROUND_MS)
    carriers = await _carriers(conn, project_id, device_id)
    gateways = [
        gateway
        for gateway in await standings.of_project(conn, project_id)
        if not carriers or gateway.gateway_id in carriers.values()
    ]
    return DeviceFacts(
        name=alias_parts(alias),
        time_ms=time_ms,
        device_id=device_id,
        network_known=network_known,
        route=DEFAULT_ROUTE if device is None or device["route"] is None else _route(device["route"]),
        rows=() if device_id is None else await _rows_about(conn, device_id, time_ms),
        waiting=await _waiting(
            conn,
            f"""{named.replace("project_id", "i.project_id")}
            AND (i.event_time BETWEEN $5 AND $6 OR i.received_time BETWEEN $5 AND $6 OR i.time = $7)""",
            project_id,
            *alias_parts(alias),
            *around,
            time_ms,
        ),
        rejected=await _rejected(
            conn, f"{named} AND received_time BETWEEN $5 AND $6", project_id, *alias_parts(alias), *around
        ),
        refused=_refused(gateways, alias, time_ms),
        gaps=await _gaps_about(conn, project_id, {gateway.gateway_id for gateway in gateways}, *around),
        gateways=gateways,
        in_pipeline=await _in_pipeline(conn, project_id, carriers),
    )


def alias_parts(alias: Alias) -> tuple[str, str, str]:
    return alias.network_id, alias.alias_key, alias.alias


async def _source(
    conn: Connection, project_id: str | None, name: RecordName
) -> tuple[int, Source, GatewayStanding | None] | None:
    """Whose the epoch is: by what has come of it, else by what gateways say of their logs."""
    row = await conn.fetchrow(
        """SELECT s.id, s.project_id, s.kind, s.gateway_id FROM hop_progress p JOIN source s ON s.id = p.source_id
           WHERE p.epoch = $1 AND ($2::text IS NULL OR s.project_id = $2) ORDER BY s.id LIMIT 1""",
        name.epoch,
        project_id,
    )
    if row is None:
        for gateway in await standings.of_project(conn, project_id):
            if gateway.standing is not None and name.epoch in dict(gateway.standing.ends):
                number = await conn.fetchval(
                    "SELECT id FROM source WHERE project_id = $1 AND gateway_id = $2",
                    gateway.project_id,
                    gateway.gateway_id,
                )
                return number, Source(gateway.project_id, "gateway", gateway.gateway_id), gateway
        return None
    source = Source(row["project_id"], row["kind"], row["gateway_id"])
    if source.gateway_id is None:
        return row["id"], source, None
    return row["id"], source, await standings.of_gateway(conn, source.project_id, source.gateway_id)


async def _rows(conn: Connection, condition: str, *values: Any) -> list[Row]:
    found = await conn.fetch(f"SELECT {_ROW} FROM history WHERE {condition} LIMIT {ROWS_MAX}", *values)
    return [_row(row) for row in found]


async def _rows_about(conn: Connection, device_id: int, time_ms: int) -> list[Row]:
    """Those that are filed about the time, and those whose device or gateway gave just this time."""
    found = await conn.fetch(
        f"""SELECT {_ROW} FROM history WHERE device_id = $1 AND event_time BETWEEN $2 - $3::bigint AND $2 + $3
            UNION
            SELECT {_ROW} FROM history WHERE device_id = $1 AND event_time BETWEEN $2 - $4::bigint AND $2 + $4
            AND (time = $2 OR received_time = $2)
            ORDER BY event_time, id LIMIT {ROWS_MAX}""",
        device_id,
        time_ms,
        AROUND_MS,
        FILED_AWAY_MS,
    )
    return [_row(row) for row in found]


def _row(row: asyncpg.Record) -> Row:
    record = row["record"]
    return Row(
        row["device_id"], row["id"].bytes, None if record is None else record.bytes, row["event_time"], row["time"],
        row["received_time"], row["flags"], row["time_error_ms"],
    )  # fmt: skip


async def _waiting(conn: Connection, condition: str, *values: Any) -> list[Waiting]:
    found = await conn.fetch(f"{_WAITING} WHERE {condition} ORDER BY i.seq LIMIT {ROWS_MAX}", *values)
    return [
        Waiting(
            row["network_id"], row["alias_key"], row["alias"], row["id"].bytes, row["event_time"],
            row["received_time"], row["replay_seq"] is not None, row["device_id"],
        )
        for row in found
    ]  # fmt: skip


async def _rejected(conn: Connection, condition: str, *values: Any) -> list[Rejected]:
    found = await conn.fetch(
        f"""SELECT seq, network_id, alias_key, alias, code, detail, received_time FROM reject
            WHERE {condition} ORDER BY seq LIMIT {ROWS_MAX}""",
        *values,
    )
    return [Rejected(**dict(row)) for row in found]


async def _dead(conn: Connection, source_id: int, name: RecordName) -> list[Dead]:
    found = await conn.fetch(
        """SELECT seq, hop, detail, (extract(epoch FROM created) * 1000)::bigint AS created_ms FROM dead_letter
           WHERE source_id = $1 AND epoch = $2 AND records @> $3::bigint ORDER BY seq""",
        source_id,
        name.epoch,
        name.seq,
    )
    return [Dead(**dict(row)) for row in found]


async def _gap(conn: Connection, source_id: int, name: RecordName) -> Gap | None:
    """The one that has the record; else the tail that it may have been in."""
    exact = await gaps.within(conn, source_id, name.epoch, name.seq, name.seq + 1)
    if exact:
        return max(exact, key=lambda gap: gap.records)
    return await gaps.tail_before(conn, source_id, name.epoch, name.seq)


async def _fates(conn: Connection, source_id: int, epoch: int) -> dict[str, int]:
    row = await conn.fetchrow(
        """SELECT coalesce(sum(stopped), 0)::bigint AS stopped, coalesce(sum(repeated), 0)::bigint AS repeated
           FROM hop_progress WHERE source_id = $1 AND epoch = $2""",
        source_id,
        epoch,
    )
    return dict(row or {})


async def _replayed(conn: Connection, source_id: int) -> int:
    """Messages that have left the inbox and are not written."""
    number: int = await conn.fetchval(
        """SELECT coalesce(sum(upper(r) - lower(r)), 0)::bigint FROM unnest(
               (SELECT done FROM hop_progress WHERE source_id = $1 AND epoch = $2 AND hop = 'inbox')
               - coalesce((SELECT done FROM hop_progress WHERE source_id = $1 AND epoch = $2 AND hop = 'transponder'),
                          '{}')) r""",
        source_id,
        INBOX_EPOCH,
    )
    return number


async def _carriers(conn: Connection, project_id: str, device_id: int | None) -> dict[int, str]:
    """Source id to gateway id, of those that carried the device's last messages."""
    if device_id is None:
        return {}
    return await standings.carriers(conn, project_id, device_id)


async def _in_pipeline(conn: Connection, project_id: str, carriers: dict[int, str]) -> int:
    source_ids: Collection[int] = carriers
    if not carriers:
        found = await conn.fetch("SELECT id FROM source WHERE project_id = $1", project_id)
        source_ids = [row["id"] for row in found]
    unwritten = await standings.unwritten(conn, source_ids)
    return sum(len(ranges) for by_epoch in unwritten.values() for ranges in by_epoch.values())


async def _gaps_about(
    conn: Connection, project_id: str, gateway_ids: Collection[str], from_ms: int, to_ms: int
) -> list[tuple[str, Gap]]:
    found = await gaps.about(conn, project_id, from_ms, to_ms, ROWS_MAX)
    return [(gateway_id, gap) for gateway_id, gap in found if gateway_id in gateway_ids]


def _refused(gateways: Sequence[GatewayStanding], alias: Alias, time_ms: int) -> list[tuple[str, RefusedSample]]:
    return [
        (gateway.gateway_id, sample)
        for gateway in gateways
        if gateway.standing is not None
        for sample in gateway.standing.refused_samples
        if (sample.network_id, sample.alias) == (alias.network_id, alias.alias)
        and abs(sample.at_ms - time_ms) <= SAMPLE_AROUND_MS
    ]
