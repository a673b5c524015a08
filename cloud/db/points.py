"""History as points: what paths had in each message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, TypeAlias

import asyncpg
import msgspec

from cloud.db.binding import Binding
from cloud.db.database import Connection
from cloud.model.series import PointsQuestion

Number = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""As a bigint holds it: a place comes back from clients."""


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Where the next page goes on behind."""

    device_id: Number
    event_time: Number
    id: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]


PointRow: TypeAlias = asyncpg.Record
"""(device id, event time, id, and for each path its JSON or None), as the driver has it: an object for each of many
points would cost as much as all the rest."""
VALUES_AT: Final = 3
"""Where a row's values begin."""


def place_of(row: PointRow) -> Place:
    return Place(row[0], row[1], row[2])


async def heard(conn: Connection, project_id: str, devices: Sequence[int], question: PointsQuestion) -> list[int]:
    """Those that have messages in the range, in their order."""
    found = await conn.fetch(
        """SELECT d.id FROM unnest($2::bigint[]) WITH ORDINALITY d (id, place) WHERE EXISTS (
               SELECT FROM history h WHERE h.project_id = $1 AND h.device_id = d.id
               AND h.event_time >= $3 AND h.event_time < $4) ORDER BY d.place""",
        project_id,
        devices,
        question.from_ms,
        question.to_ms,
    )
    return [row["id"] for row in found]


async def page(
    conn: Connection,
    project_id: str,
    device_id: int,
    question: PointsQuestion,
    *,
    after: Place | None,
    limit: int,
    descending: bool,
) -> list[PointRow]:
    """Up to `limit` in order of (event time, id)."""
    order, beyond = ("DESC", "<") if descending else ("ASC", ">")
    binding = Binding(project_id, device_id, question.from_ms, question.to_ms, limit)
    paths = [binding.value_at(path) for path in question.paths]
    conditions = binding.conditions(question.filters)
    if after is not None:
        place = f"({binding.bind(after.event_time)}, {binding.bind(after.id)}::uuid)"
        conditions += f" AND (h.event_time, h.id) {beyond} {place}"
    values = ", ".join(f"nullif({path}, 'null')::text" for path in paths)
    return await conn.fetch(
        f"""SELECT h.device_id, h.event_time, h.id::text, {values} FROM history h
            WHERE h.project_id = $1 AND h.device_id = $2 AND h.event_time >= $3 AND h.event_time < $4
              AND ({" OR ".join(f"jsonb_typeof({path}) <> 'null'" for path in paths)}){conditions}
            ORDER BY h.event_time {order}, h.id {order} LIMIT $5""",
        *binding.values,
    )
