"""What somebody sees and may do. A project that somebody does not see does not exist for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from cloud.db.database import Connection
from cloud.db.errors import NotFoundError
from cloud.model.access import NOTHING, PERMISSIONS, ROLES, Access, Permission

VISIBLE: Final = """($1::boolean OR p.id = $3::text OR EXISTS (
    SELECT FROM user_grant g WHERE g.user_id = $2::bigint AND g.project_id = p.id))"""
"""A condition on `project p`; $1, $2 and $3 are the principal's `admin`, `user_id` and `project_id`."""


class Principal(msgspec.Struct, frozen=True):
    """Who asks: a user, or an API key. An administrator does everything in every project."""

    name: str
    user_id: int = 0
    """0: an API key."""
    admin: bool = False
    project_id: str | None = None
    """Of an API key."""
    access: Access = Access()
    """Of an API key, in its project."""

    @property
    def actor(self) -> str:
        """As the audit trail names it."""
        return f"user:{self.name}" if self.user_id else f"key:{self.name}"


async def access(conn: Connection, principal: Principal, project_id: str) -> Access:
    """Raises NotFoundError if the principal does not see the project, whether or not it exists."""
    if not principal.user_id:
        if project_id != principal.project_id:
            raise NotFoundError("project", project_id)
        return principal.access
    if principal.admin:
        if not await conn.fetchval("SELECT EXISTS (SELECT FROM project WHERE id = $1)", project_id):
            raise NotFoundError("project", project_id)
        return Access(ROLES["owner"])
    granted = await conn.fetch(
        """SELECT g.system_id, g.role, r.permissions FROM user_grant g
           LEFT JOIN project_role r ON r.project_id = g.project_id AND r.id = g.role
           WHERE g.user_id = $1 AND g.project_id = $2""",
        principal.user_id,
        project_id,
    )
    if not granted:
        raise NotFoundError("project", project_id)
    return combined([(row["system_id"], permissions_of(row["role"], row["permissions"])) for row in granted])


def combined(granted: Sequence[tuple[str | None, frozenset[Permission]]]) -> Access:
    """Of (system or None for all, permissions)."""
    return Access(
        next((held for system_id, held in granted if system_id is None), NOTHING),
        {system_id: held for system_id, held in granted if system_id is not None},
    )


def permissions_of(role: str, own: Sequence[str] | None) -> frozenset[Permission]:
    """`own`: of a role that the project made; those that this version does not know count for nothing."""
    return ROLES[role] if role in ROLES else known(own or ())


def known(names: Sequence[str]) -> frozenset[Permission]:
    return frozenset(permission for permission in PERMISSIONS if permission in names)


async def visible(conn: Connection, principal: Principal, limit: int) -> list[str]:
    """Up to `limit` ids of projects that the principal sees, by id."""
    found = await conn.fetch(
        f"SELECT id FROM project p WHERE {VISIBLE} ORDER BY id LIMIT $4",
        principal.admin,
        principal.user_id,
        principal.project_id,
        limit,
    )
    return [row["id"] for row in found]


async def place_of_device(conn: Connection, principal: Principal, device_id: int) -> tuple[str, str]:
    """(project, system). Raises NotFoundError if there is no such device in a project that the principal sees."""
    row = await conn.fetchrow(
        f"SELECT p.id, d.system_id FROM project p JOIN device d ON d.project_id = p.id WHERE {VISIBLE} AND d.id = $4",
        principal.admin,
        principal.user_id,
        principal.project_id,
        device_id,
    )
    if row is None:
        raise NotFoundError("device", device_id)
    return row["id"], row["system_id"]
