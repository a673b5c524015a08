"""Networks whose unknown devices are created by themselves."""

from __future__ import annotations

from typing import Final

import asyncpg
import msgspec

from cloud.db import devices
from cloud.db.database import Connection
from cloud.db.errors import DanglingError, NotFoundError, violations
from cloud.model.auto_create import device_name
from sync.registry import Alias

_COLUMNS: Final = "project_id, network_id, system_id, blueprint_id, name, devices_max"
_NAMES: Final = """
    WITH RECURSIVE waiting AS (
        (SELECT alias_key, alias FROM inbox WHERE project_id = $1 AND network_id = $2
         ORDER BY alias_key, alias LIMIT 1)
        UNION ALL
        SELECT following.alias_key, following.alias FROM waiting, LATERAL (
            SELECT i.alias_key, i.alias FROM inbox i WHERE i.project_id = $1 AND i.network_id = $2
            AND (i.alias_key, i.alias) > (waiting.alias_key, waiting.alias) ORDER BY i.alias_key, i.alias LIMIT 1
        ) following
    )
    SELECT alias_key, alias FROM waiting WHERE NOT EXISTS (
        SELECT FROM alias a WHERE a.project_id = $1 AND a.network_id = $2
        AND a.alias_key = waiting.alias_key AND a.alias = waiting.alias)
    LIMIT $3"""
"""From name to name by the index, however many messages wait under each."""


class AutoCreate(msgspec.Struct, frozen=True):
    project_id: str
    network_id: str
    system_id: str
    blueprint_id: str
    name: str
    """A template (cloud/model/auto_create.py)."""
    devices_max: int
    """Of the network, however they came: at this number nothing is created."""


async def put(conn: Connection, wanted: AutoCreate) -> None:
    """Raises NotFoundError (the network), DanglingError."""
    meaning = {
        "auto_create_project_id_network_id_fkey": NotFoundError("network", wanted.network_id),
        "auto_create_system": DanglingError("system_id", "system", wanted.system_id),
        "auto_create_blueprint": DanglingError("blueprint_id", "blueprint", wanted.blueprint_id),
    }
    with violations(meaning):
        await conn.execute(
            f"""INSERT INTO auto_create ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6)
                ON CONFLICT (project_id, network_id) DO UPDATE SET system_id = $3, blueprint_id = $4, name = $5,
                devices_max = $6""",
            *msgspec.structs.astuple(wanted),
        )


async def get(conn: Connection, project_id: str, network_id: str) -> AutoCreate:
    """Raises NotFoundError: it is not wanted."""
    row = await conn.fetchrow(
        f"SELECT {_COLUMNS} FROM auto_create WHERE project_id = $1 AND network_id = $2", project_id, network_id
    )
    if row is None:
        raise NotFoundError("automatic creation for network", network_id)
    return _row(row)


async def delete(conn: Connection, project_id: str, network_id: str) -> None:
    """Raises NotFoundError: it is not wanted."""
    status = await conn.execute(
        "DELETE FROM auto_create WHERE project_id = $1 AND network_id = $2", project_id, network_id
    )
    if status == "DELETE 0":
        raise NotFoundError("automatic creation for network", network_id)


async def devices_of(conn: Connection, project_id: str, network_id: str) -> int:
    """How many devices have an alias on the network."""
    number: int = await conn.fetchval(
        "SELECT count(DISTINCT device_id) FROM alias WHERE project_id = $1 AND network_id = $2", project_id, network_id
    )
    return number


async def waiting(conn: Connection) -> list[AutoCreate]:
    """Of all projects, those of networks from which any message waits."""
    found = await conn.fetch(
        f"""SELECT {_COLUMNS} FROM auto_create c WHERE EXISTS (
                SELECT FROM inbox i WHERE i.project_id = c.project_id AND i.network_id = c.network_id)
            ORDER BY project_id, network_id"""
    )
    return [_row(row) for row in found]


async def create_some(conn: Connection, project_id: str, network_id: str, limit: int) -> int:
    """Creates devices for up to `limit` unknown names that messages wait under; how many. Once for each name: the
    project's row is held, as in every change of the registry. Raises NotFoundError."""
    if not await conn.fetch(_NAMES, project_id, network_id, 1) or await _room(conn, project_id, network_id) <= 0:
        return 0
    await conn.fetchval("SELECT id FROM project WHERE id = $1 FOR UPDATE", project_id)
    wanted = await get(conn, project_id, network_id)
    room = await _room(conn, project_id, network_id)
    await conn.execute("SELECT set_config('tidegate.actor', $1, true)", f"network {network_id}")
    found = await conn.fetch(_NAMES, project_id, network_id, min(limit, max(room, 0)))
    for row in found:
        alias = Alias(network_id, row["alias_key"], row["alias"])
        await devices.create(
            conn,
            project_id,
            system_id=wanted.system_id,
            blueprint_id=wanted.blueprint_id,
            name=device_name(wanted.name, alias),
            aliases=[alias],
        )
    return len(found)


async def _room(conn: Connection, project_id: str, network_id: str) -> int:
    wanted = await get(conn, project_id, network_id)
    return wanted.devices_max - await devices_of(conn, project_id, network_id)


def _row(row: asyncpg.Record) -> AutoCreate:
    return AutoCreate(**dict(row))
