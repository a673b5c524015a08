"""Devices and their aliases."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any, Final, TypedDict

import asyncpg
import msgspec

from cloud.db.database import Connection
from cloud.db.errors import DanglingError, NotFoundError, TakenError, violations
from cloud.db.registry import ALIASES
from cloud.db.revision import bury, check_revision, next_revision
from cloud.db.secrets import with_secret
from protocols.messages import Route
from sync.registry import Alias


class Device(msgspec.Struct, frozen=True):
    id: int
    project_id: str
    system_id: str
    blueprint_id: str
    name: str
    aliases: tuple[Alias, ...]
    route: Route | None
    """None: the blueprint's."""
    credentials: int
    """How many secrets it has: 0, 1, or 2 while one is being rotated."""
    revision: int
    created_at: datetime.datetime


class DeviceChanges(TypedDict, total=False):
    system_id: str
    blueprint_id: str
    name: str
    aliases: tuple[Alias, ...]
    route: Route | None


class DeviceFilter(msgspec.Struct, frozen=True):
    """What to list; None: any. Names and aliases are compared without regard to case."""

    system_id: str | None = None
    blueprint_id: str | None = None
    network_id: str | None = None
    """Devices with an alias on it."""
    alias: str | None = None
    """Devices with exactly this alias, on any network, under any key."""
    starts_with: str | None = None
    """Devices whose name, or an alias, starts so."""
    of_systems: list[str] | None = None
    """Devices in these: what the caller may see."""


_route: Final = msgspec.json.Decoder(Route).decode
_aliases: Final = msgspec.json.Decoder(tuple[Alias, ...]).decode
_SELECT: Final = f"""
    SELECT d.id, d.project_id, d.system_id, d.blueprint_id, d.name, {ALIASES} AS aliases, d.route,
           cardinality(d.secret_sha256) AS credentials, d.revision, d.created_at
    FROM device d"""
_PAGE: Final = f"""{_SELECT}
    WHERE d.project_id = $1 AND ($2::bigint IS NULL OR d.id > $2)
      AND ($4::text IS NULL OR d.system_id = $4) AND ($5::text IS NULL OR d.blueprint_id = $5)
      AND ($6::text IS NULL OR d.id IN (SELECT device_id FROM alias WHERE project_id = $1 AND network_id = $6))
      AND ($7::text IS NULL
           OR d.id IN (SELECT device_id FROM alias WHERE project_id = $1 AND lower(alias) = lower($7)))
      AND ($8::text IS NULL OR lower(d.name) LIKE $8
           OR d.id IN (SELECT device_id FROM alias WHERE project_id = $1 AND lower(alias) LIKE $8))
      AND ($9::text[] IS NULL OR d.system_id = ANY ($9))
    ORDER BY d.id LIMIT $3"""


async def create(
    conn: Connection,
    project_id: str,
    *,
    system_id: str,
    blueprint_id: str,
    name: str,
    aliases: Sequence[Alias] = (),
    route: Route | None = None,
    secret_sha256: str | None = None,
) -> Device:
    """Raises DanglingError, TakenError (an alias), NotFoundError (the project)."""
    revision = await next_revision(conn, project_id)
    with violations(_dangling(system_id, blueprint_id)):
        device_id: int = await conn.fetchval(
            """INSERT INTO device (project_id, system_id, blueprint_id, name, route, secret_sha256, revision)
               VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING id""",
            project_id,
            system_id,
            blueprint_id,
            name,
            _encode(route),
            [secret_sha256] if secret_sha256 else [],
            revision,
        )
    await _add_aliases(conn, project_id, device_id, aliases)
    return await get(conn, project_id, device_id)


async def get(conn: Connection, project_id: str, device_id: int) -> Device:
    """Raises NotFoundError."""
    row = await conn.fetchrow(f"{_SELECT} WHERE d.project_id = $1 AND d.id = $2", project_id, device_id)
    if row is None:
        raise NotFoundError("device", device_id)
    return _device(row)


async def find(conn: Connection, project_id: str, alias: Alias) -> tuple[int, str]:
    """(id, system) of the device that is known by this alias. Raises NotFoundError."""
    row = await conn.fetchrow(
        """SELECT d.id, d.system_id FROM alias a JOIN device d ON d.id = a.device_id
           WHERE a.project_id = $1 AND a.network_id = $2 AND a.alias_key = $3 AND a.alias = $4""",
        project_id,
        alias.network_id,
        alias.alias_key,
        alias.alias,
    )
    if row is None:
        raise NotFoundError("device", ":".join((alias.network_id, alias.alias_key, alias.alias)))
    return row["id"], row["system_id"]


async def page(
    conn: Connection, project_id: str, wanted: DeviceFilter, *, after: int | None = None, limit: int
) -> list[Device]:
    """By id."""
    prefix = None
    if wanted.starts_with is not None:
        literal = wanted.starts_with.lower().replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
        prefix = literal + "%"
    found = await conn.fetch(
        _PAGE,
        project_id,
        after,
        limit,
        wanted.system_id,
        wanted.blueprint_id,
        wanted.network_id,
        wanted.alias,
        prefix,
        wanted.of_systems,
    )
    return [_device(row) for row in found]


async def update(
    conn: Connection, project_id: str, device_id: int, changes: DeviceChanges, expected_revision: int | None = None
) -> Device:
    """`aliases`, where given, replace all that it had. Raises NotFoundError, ChangedError, DanglingError,
    TakenError."""
    revision = await next_revision(conn, project_id)
    held = await get(conn, project_id, device_id)
    check_revision("device", device_id, held.revision, expected_revision)
    new = msgspec.structs.replace(held, **changes)
    with violations(_dangling(new.system_id, new.blueprint_id)):
        await conn.execute(
            """UPDATE device SET system_id = $3, blueprint_id = $4, name = $5, route = $6, revision = $7
               WHERE project_id = $1 AND id = $2""",
            project_id,
            device_id,
            new.system_id,
            new.blueprint_id,
            new.name,
            _encode(new.route),
            revision,
        )
    if new.aliases != held.aliases:
        await conn.execute("DELETE FROM alias WHERE device_id = $1", device_id)
        await _add_aliases(conn, project_id, device_id, new.aliases)
    return await get(conn, project_id, device_id)


async def add_secret(conn: Connection, project_id: str, device_id: int, sha256: str, *, keep_previous: bool) -> Device:
    """Makes it the newest secret of the device. Raises NotFoundError."""
    revision = await next_revision(conn, project_id)
    held = await conn.fetchval(
        "SELECT secret_sha256 FROM device WHERE project_id = $1 AND id = $2", project_id, device_id
    )
    await conn.execute(
        "UPDATE device SET secret_sha256 = $3, revision = $4 WHERE project_id = $1 AND id = $2",
        project_id,
        device_id,
        with_secret(held or [], sha256, keep_previous),
        revision,
    )
    return await get(conn, project_id, device_id)


async def clear_secrets(conn: Connection, project_id: str, device_id: int) -> None:
    """From now on the network's credential is the device's. Raises NotFoundError."""
    revision = await next_revision(conn, project_id)
    status = await conn.execute(
        "UPDATE device SET secret_sha256 = '{}', revision = $3 WHERE project_id = $1 AND id = $2",
        project_id,
        device_id,
        revision,
    )
    if status == "UPDATE 0":
        raise NotFoundError("device", device_id)


async def delete(conn: Connection, project_id: str, device_id: int, expected_revision: int | None = None) -> None:
    """With its aliases; what it has said stays in history. Raises NotFoundError, ChangedError."""
    revision = await next_revision(conn, project_id)
    held = await get(conn, project_id, device_id)
    check_revision("device", device_id, held.revision, expected_revision)
    await conn.execute("DELETE FROM device WHERE project_id = $1 AND id = $2", project_id, device_id)
    await bury(conn, project_id, "device", device_id, revision)


async def plain_names(conn: Connection, project_id: str, device_id: int) -> list[str]:
    """The user names that the device may connect under, by its aliases in order: the alias where its key is the
    network's, else `key:alias`."""
    found = await conn.fetch(
        """SELECT CASE WHEN a.alias_key = n.alias_key AND strpos(a.alias, ':') = 0 THEN a.alias
                       ELSE a.alias_key || ':' || a.alias END AS name
           FROM alias a JOIN network n ON n.project_id = a.project_id AND n.id = a.network_id
           WHERE a.project_id = $1 AND a.device_id = $2 ORDER BY a.place""",
        project_id,
        device_id,
    )
    return [row["name"] for row in found]


async def _add_aliases(conn: Connection, project_id: str, device_id: int, aliases: Sequence[Alias]) -> None:
    """The project's row is locked: what is looked up here stays so."""
    if not aliases:
        return
    columns = [list(column) for column in zip(*((a.network_id, a.alias_key, a.alias) for a in aliases), strict=True)]
    missing = await conn.fetchval(
        """SELECT network_id FROM unnest($2::text[]) AS given (network_id)
           WHERE NOT EXISTS (SELECT FROM network n WHERE n.project_id = $1 AND n.id = given.network_id) LIMIT 1""",
        project_id,
        columns[0],
    )
    if missing is not None:
        raise DanglingError("aliases", "network", missing)
    taken = await conn.fetchrow(
        """SELECT network_id, alias_key, alias, device_id FROM alias
           JOIN unnest($2::text[], $3::text[], $4::text[]) AS given (network_id, alias_key, alias)
           USING (network_id, alias_key, alias) WHERE project_id = $1 LIMIT 1""",
        project_id,
        *columns,
    )
    if taken is not None:
        alias = ":".join((taken["network_id"], taken["alias_key"], taken["alias"]))
        raise TakenError("aliases", f"alias {alias} of device {taken['device_id']}")
    with violations({"alias_pkey": TakenError("aliases", "an alias that is given twice")}):
        await conn.execute(
            """INSERT INTO alias (project_id, network_id, alias_key, alias, device_id, place)
               SELECT $1, network_id, alias_key, alias, $5, place
               FROM unnest($2::text[], $3::text[], $4::text[]) WITH ORDINALITY
               AS given (network_id, alias_key, alias, place)""",
            project_id,
            *columns,
            device_id,
        )


def _dangling(system_id: str, blueprint_id: str) -> dict[str, DanglingError]:
    return {
        "device_system": DanglingError("system_id", "system", system_id),
        "device_blueprint": DanglingError("blueprint_id", "blueprint", blueprint_id),
    }


def _encode(route: Route | None) -> str | None:
    return None if route is None else msgspec.json.encode(route).decode()


def _device(row: asyncpg.Record) -> Device:
    fields: dict[str, Any] = dict(row)
    aliases, route = fields.pop("aliases"), fields.pop("route")
    return Device(aliases=_aliases(aliases), route=None if route is None else _route(route), **fields)
