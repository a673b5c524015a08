"""Blueprints: the data models of kinds of devices."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, Final, Literal, TypedDict

import asyncpg
import msgspec

from cloud.db import blueprint_versions
from cloud.db.database import Connection
from cloud.db.errors import DanglingError, InUseError, NotFoundError, TakenError, violations
from cloud.db.revision import bury, check_revision, next_revision, unbury
from cloud.model.attribute import Attribute
from cloud.model.blueprint import read_attributes
from protocols.messages import Route

Kind = Literal["device", "group"]


class Blueprint(msgspec.Struct, frozen=True):
    project_id: str
    id: str
    name: str
    kind: Kind
    """Of devices, or of groups of them; for good."""
    attributes: dict[str, Attribute]
    route: Route | None
    """None: the default route."""
    revision: int
    created_at: datetime.datetime
    version: int
    """1, and 1 more with each change."""
    changed_at: datetime.datetime


class BlueprintChanges(TypedDict, total=False):
    name: str
    attributes: dict[str, Attribute]
    route: Route | None


_route: Final = msgspec.json.Decoder(Route).decode


async def create(
    conn: Connection,
    project_id: str,
    blueprint_id: str,
    *,
    name: str,
    attributes: dict[str, Attribute],
    route: Route | None = None,
    kind: Kind = "device",
) -> Blueprint:
    """Raises TakenError, NotFoundError (the project), DanglingError (a relationship's blueprint)."""
    revision = await next_revision(conn, project_id)
    await _check_relationships(conn, project_id, blueprint_id, attributes)
    with violations({"blueprint_pkey": TakenError("id", f"blueprint {blueprint_id}")}):
        row = await conn.fetchrow(
            """INSERT INTO blueprint (project_id, id, name, attributes, route, revision, kind)
               VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING *""",
            project_id,
            blueprint_id,
            name,
            _encode(attributes),
            _encode(route),
            revision,
            kind,
        )
    await unbury(conn, project_id, "blueprint", blueprint_id)
    return _blueprint(blueprint_id, row)


async def get(conn: Connection, project_id: str, blueprint_id: str) -> Blueprint:
    """Raises NotFoundError."""
    row = await conn.fetchrow("SELECT * FROM blueprint WHERE project_id = $1 AND id = $2", project_id, blueprint_id)
    return _blueprint(blueprint_id, row)


async def page(conn: Connection, project_id: str, *, after: str | None = None, limit: int) -> list[Blueprint]:
    """By id."""
    found = await conn.fetch(
        "SELECT * FROM blueprint WHERE project_id = $1 AND ($2::text IS NULL OR id > $2) ORDER BY id LIMIT $3",
        project_id,
        after,
        limit,
    )
    return [_blueprint(row["id"], row) for row in found]


async def attributes_of_device(conn: Connection, project_id: str, device_id: int) -> dict[str, Attribute]:
    """Those of its blueprint. Raises NotFoundError."""
    found: str | None = await conn.fetchval(
        """SELECT b.attributes FROM device d JOIN blueprint b ON b.project_id = d.project_id AND b.id = d.blueprint_id
           WHERE d.project_id = $1 AND d.id = $2""",
        project_id,
        device_id,
    )
    if found is None:
        raise NotFoundError("device", device_id)
    return read_attributes(found)


async def update(
    conn: Connection,
    project_id: str,
    blueprint_id: str,
    changes: BlueprintChanges,
    expected_revision: int | None = None,
) -> Blueprint:
    """The version before is kept; what changes nothing makes no new one. Raises NotFoundError, ChangedError,
    DanglingError (a relationship's blueprint)."""
    revision = await next_revision(conn, project_id)
    held = await get(conn, project_id, blueprint_id)
    check_revision("blueprint", blueprint_id, held.revision, expected_revision)
    new = msgspec.structs.replace(held, **changes)
    if new == held:
        return held
    await _check_relationships(conn, project_id, blueprint_id, new.attributes)
    await blueprint_versions.keep(conn, project_id, blueprint_id)
    row = await conn.fetchrow(
        """UPDATE blueprint SET name = $3, attributes = $4, route = $5, revision = $6, version = version + 1,
                                changed_at = now()
           WHERE project_id = $1 AND id = $2 RETURNING *""",
        project_id,
        blueprint_id,
        new.name,
        _encode(new.attributes),
        _encode(new.route),
        revision,
    )
    return _blueprint(blueprint_id, row)


async def delete(conn: Connection, project_id: str, blueprint_id: str, expected_revision: int | None = None) -> None:
    """Raises NotFoundError, ChangedError; InUseError while devices are of it."""
    revision = await next_revision(conn, project_id)
    held = await get(conn, project_id, blueprint_id)
    check_revision("blueprint", blueprint_id, held.revision, expected_revision)
    with violations(
        {
            "device_blueprint": InUseError("blueprint", blueprint_id, "devices"),
            "auto_create_blueprint": InUseError(
                "blueprint", blueprint_id, "the automatic creation of a network's devices"
            ),
        }
    ):
        await conn.execute("DELETE FROM blueprint WHERE project_id = $1 AND id = $2", project_id, blueprint_id)
    await bury(conn, project_id, "blueprint", blueprint_id, revision)


async def _check_relationships(
    conn: Connection, project_id: str, blueprint_id: str, attributes: Mapping[str, Attribute]
) -> None:
    wanted = {one.blueprint: name for name, one in attributes.items() if one.blueprint not in (None, blueprint_id)}
    missing = await conn.fetchval(
        """SELECT wanted.id FROM unnest($2::text[]) AS wanted (id)
           WHERE NOT EXISTS (SELECT FROM blueprint b WHERE b.project_id = $1 AND b.id = wanted.id) LIMIT 1""",
        project_id,
        list(wanted),
    )
    if missing is not None:
        raise DanglingError(f"attributes.{wanted[missing]}.blueprint", "blueprint", missing)


def _encode(value: object) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()


def _blueprint(blueprint_id: str, row: asyncpg.Record | None) -> Blueprint:
    if row is None:
        raise NotFoundError("blueprint", blueprint_id)
    fields: dict[str, Any] = dict(row)
    attributes, route = fields.pop("attributes"), fields.pop("route")
    return Blueprint(attributes=read_attributes(attributes), route=None if route is None else _route(route), **fields)
