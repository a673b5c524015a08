"""Relations between devices: which parent has which children, by a relationship of the parent's blueprint."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from cloud.db import blueprints, devices
from cloud.db.database import Connection
from cloud.db.errors import NotFoundError, RowError
from cloud.db.revision import next_revision
from cloud.model.attribute import Attribute, Cardinality

CHILDREN_MAX: Final = 10_000
"""Of a parent by one relationship: more are a project's whole fleet, which a system is for."""
PARENTS_MAX: Final = 16
"""Of a child, by all relationships: each may get what it sends."""


class Relation(msgspec.Struct, frozen=True):
    """Seen from one of its two devices."""

    role: Literal["child", "parent"]
    """Of the other one."""
    key: str
    device: int
    """The other one."""
    name: str
    blueprint_id: str
    """Of the other one."""
    created_at: datetime.datetime


class Linked(msgspec.Struct, frozen=True):
    key: str
    parent: int
    child: int
    cardinality: Cardinality


class UnsuitedError(RowError):
    """`field` names what does not suit the relationship."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(detail)
        self.field = field


class FullError(RowError):
    """One of the devices has as many by this relationship as it may have."""

    def __init__(self, detail: str, limit: int) -> None:
        super().__init__(detail)
        self.limit = limit


async def link(conn: Connection, project_id: str, parent_id: int, key: str, child_id: int) -> Linked:
    """Does nothing where it is there already. Raises NotFoundError (a device, the relationship), UnsuitedError,
    FullError."""
    revision = await next_revision(conn, project_id)
    parent = await devices.get(conn, project_id, parent_id)
    child = await devices.get(conn, project_id, child_id)
    declared = await _declared(conn, project_id, parent, key)
    assert declared.cardinality is not None, "checked when it was declared"
    linked = Linked(key, parent_id, child_id, declared.cardinality)
    if child.blueprint_id != declared.blueprint:
        detail = (
            f"device {child_id} is a {child.blueprint_id}; {key} of {parent.blueprint_id} leads to {declared.blueprint}"
        )
        raise UnsuitedError("other", detail)
    if parent_id == child_id:
        raise UnsuitedError("other", "a device is not related to itself")
    if await _exists(conn, linked):
        return linked
    await _check_room(conn, project_id, linked, parent.blueprint_id)
    await conn.execute(
        "INSERT INTO relation (project_id, parent_id, key, child_id) VALUES ($1, $2, $3, $4)",
        project_id,
        parent_id,
        key,
        child_id,
    )
    await _touch(conn, project_id, child_id, revision)
    return linked


async def unlink(conn: Connection, project_id: str, parent_id: int, key: str, child_id: int) -> None:
    """Raises NotFoundError."""
    revision = await next_revision(conn, project_id)
    status = await conn.execute(
        "DELETE FROM relation WHERE project_id = $1 AND parent_id = $2 AND key = $3 AND child_id = $4",
        project_id,
        parent_id,
        key,
        child_id,
    )
    if status == "DELETE 0":
        raise NotFoundError("relation", f"{key} of device {parent_id} to {child_id}")
    await _touch(conn, project_id, child_id, revision)


async def page(
    conn: Connection,
    project_id: str,
    device_id: int,
    *,
    systems: Sequence[str] | None = None,
    after: tuple[str, str, int] | None = None,
    limit: int,
) -> list[Relation]:
    """In order of (role, key, the other device), those behind `after` only. `systems`: of the other devices; None:
    any."""
    found = await conn.fetch(
        """SELECT o.role, o.key, o.device, d.name, d.blueprint_id, o.created_at FROM (
               SELECT 'child' AS role, key, child_id AS device, created_at FROM relation
               WHERE project_id = $1 AND parent_id = $2
               UNION ALL
               SELECT 'parent', key, parent_id, created_at FROM relation WHERE project_id = $1 AND child_id = $2
           ) o JOIN device d ON d.id = o.device
           WHERE ($3::text IS NULL OR (o.role, o.key, o.device) > ($3, $4::text, $5::bigint))
             AND ($7::text[] IS NULL OR d.system_id = ANY($7))
           ORDER BY o.role, o.key, o.device LIMIT $6""",
        project_id,
        device_id,
        *(after or (None, None, None)),
        limit,
        systems,
    )
    return [Relation(**dict(row)) for row in found]


async def _declared(conn: Connection, project_id: str, parent: devices.Device, key: str) -> Attribute:
    attribute = (await blueprints.get(conn, project_id, parent.blueprint_id)).attributes.get(key)
    if attribute is None or attribute.type != "relationship":
        raise NotFoundError("relationship", f"{key} in blueprint {parent.blueprint_id}")
    return attribute


async def _exists(conn: Connection, linked: Linked) -> bool:
    found: bool = await conn.fetchval(
        "SELECT EXISTS (SELECT FROM relation WHERE parent_id = $1 AND key = $2 AND child_id = $3)",
        linked.parent,
        linked.key,
        linked.child,
    )
    return found


async def _check_room(conn: Connection, project_id: str, linked: Linked, blueprint_id: str) -> None:
    """Children by this relationship; parents by the same relationship of the same blueprint, and by any. The project's
    row is locked: what is counted here stays so."""
    of_parent, of_child = linked.cardinality.split("-")
    children = await conn.fetchval(
        "SELECT count(*) FROM relation WHERE parent_id = $1 AND key = $2", linked.parent, linked.key
    )
    if of_child == "1" and children:
        raise FullError(
            f"device {linked.parent} has a {linked.key} already, and {linked.cardinality} lets it have one", 1
        )
    if children >= CHILDREN_MAX:
        raise FullError(f"device {linked.parent} has {children:,} devices by {linked.key}", CHILDREN_MAX)
    parents = await conn.fetch(
        """SELECT r.parent_id, r.key = $3 AND d.blueprint_id = $4 AS same FROM relation r
           JOIN device d ON d.id = r.parent_id WHERE r.project_id = $1 AND r.child_id = $2 ORDER BY r.parent_id""",
        project_id,
        linked.child,
        linked.key,
        blueprint_id,
    )
    same = [row["parent_id"] for row in parents if row["same"]]
    if of_parent == "1" and same:
        detail = f"device {linked.child} is the {linked.key} of device {same[0]} already"
        raise FullError(f"{detail}, and {linked.cardinality} lets it have one", 1)
    if len(parents) >= PARENTS_MAX:
        raise FullError(f"device {linked.child} has {len(parents)} parents", PARENTS_MAX)


async def _touch(conn: Connection, project_id: str, child_id: int, revision: int) -> None:
    """Replicas of the registry know a device's parents with the device."""
    await conn.execute(
        "UPDATE device SET revision = $3 WHERE project_id = $1 AND id = $2", project_id, child_id, revision
    )
