"""What blueprints were before their changes."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator
from typing import Any, Final

import asyncpg
import msgspec

from cloud.db.database import Connection
from cloud.db.errors import NotFoundError
from cloud.model.attribute import Attribute
from cloud.model.blueprint import read_attributes
from cloud.model.blueprint_change import Effects
from protocols.messages import Route

VERSIONS_KEPT: Final = 200
"""Of a blueprint, beside the present one: years of changes by people."""
VALUES_LOOKED_MAX: Final = 50_000
"""Current values that a preview looks at."""
VALUES_AT_ONCE: Final = 500
"""A few milliseconds of work, after which others have their turn."""

_VERSIONS: Final = """
    SELECT version, name, attributes, route, changed_at FROM blueprint_version
    WHERE project_id = $1 AND blueprint_id = $2
    UNION ALL
    SELECT version, name, attributes, route, changed_at FROM blueprint WHERE project_id = $1 AND id = $2"""
_route: Final = msgspec.json.Decoder(Route).decode


class BlueprintVersion(msgspec.Struct, frozen=True):
    version: int
    """1 is the first."""
    name: str
    attributes: dict[str, Attribute]
    route: Route | None
    changed_at: datetime.datetime
    """When it came to be."""


async def keep(conn: Connection, project_id: str, blueprint_id: str) -> None:
    """The blueprint as it is, before it changes; the oldest versions go."""
    version = await conn.fetchval(
        """INSERT INTO blueprint_version (project_id, blueprint_id, version, name, attributes, route, changed_at)
           SELECT project_id, id, version, name, attributes, route, changed_at FROM blueprint
           WHERE project_id = $1 AND id = $2 RETURNING version""",
        project_id,
        blueprint_id,
    )
    await conn.execute(
        "DELETE FROM blueprint_version WHERE project_id = $1 AND blueprint_id = $2 AND version <= $3",
        project_id,
        blueprint_id,
        version - VERSIONS_KEPT,
    )


async def page(
    conn: Connection, project_id: str, blueprint_id: str, *, after: int | None = None, limit: int
) -> list[BlueprintVersion]:
    """The newest, which is the present one, first; those before `after` only."""
    found = await conn.fetch(
        f"SELECT * FROM ({_VERSIONS}) v WHERE $3::integer IS NULL OR version < $3 ORDER BY version DESC LIMIT $4",
        project_id,
        blueprint_id,
        after,
        limit,
    )
    return [_version(row) for row in found]


async def get(conn: Connection, project_id: str, blueprint_id: str, version: int | None) -> BlueprintVersion:
    """None: the present one. Raises NotFoundError."""
    row = await conn.fetchrow(
        f"SELECT * FROM ({_VERSIONS}) v WHERE $3::integer IS NULL OR version = $3 ORDER BY version DESC LIMIT 1",
        project_id,
        blueprint_id,
        version,
    )
    if row is None:
        raise NotFoundError("blueprint", blueprint_id if version is None else f"{blueprint_id} of version {version}")
    return _version(row)


async def devices(conn: Connection, project_id: str, blueprint_id: str) -> int:
    """How many are of it."""
    count: int = await conn.fetchval(
        "SELECT count(*) FROM device WHERE project_id = $1 AND blueprint_id = $2", project_id, blueprint_id
    )
    return count


async def look_at_values(conn: Connection, project_id: str, blueprint_id: str, effects: Effects) -> bool:
    """Shows the effects the current values that they are about; whether these were all. `conn` is in a transaction."""
    looked = 0
    values: dict[str, bytes] = {}
    device = 0
    async for row in _values(conn, project_id, blueprint_id, effects.names):
        if row["device_id"] != device:
            effects.add(device, values)
            device, values = row["device_id"], {}
            if looked >= VALUES_LOOKED_MAX:
                return False
        values[row["attribute"]] = row["value"].encode()
        looked += 1
    effects.add(device, values)
    return True


async def _values(
    conn: Connection, project_id: str, blueprint_id: str, names: list[str]
) -> AsyncIterator[asyncpg.Record]:
    """The newest devices first, all of a device together."""
    async for row in conn.cursor(
        """SELECT c.device_id, c.attribute, c.value::text AS value FROM device d
           JOIN current_value c ON c.device_id = d.id AND c.project_id = d.project_id
           WHERE d.project_id = $1 AND d.blueprint_id = $2 AND c.attribute = ANY($3::text[]) ORDER BY d.id DESC""",
        project_id,
        blueprint_id,
        names,
        prefetch=VALUES_AT_ONCE,
    ):
        yield row


def _version(row: asyncpg.Record) -> BlueprintVersion:
    fields: dict[str, Any] = dict(row)
    attributes, route = fields.pop("attributes"), fields.pop("route")
    return BlueprintVersion(
        attributes=read_attributes(attributes), route=None if route is None else _route(route), **fields
    )
