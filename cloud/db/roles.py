"""Roles that a project made for itself, beside those that every project has."""

from __future__ import annotations

import msgspec

from cloud.db.database import Connection
from cloud.db.errors import InUseError, NotFoundError
from cloud.db.tenancy import known
from cloud.model.access import Permission


class Role(msgspec.Struct, frozen=True):
    id: str
    name: str
    permissions: frozenset[Permission]


async def of_project(conn: Connection, project_id: str) -> list[Role]:
    """By id."""
    found = await conn.fetch(
        "SELECT id, name, permissions FROM project_role WHERE project_id = $1 ORDER BY id", project_id
    )
    return [Role(row["id"], row["name"], known(row["permissions"])) for row in found]


async def put(conn: Connection, project_id: str, role: Role) -> None:
    """Who has it has these permissions from the next request on."""
    await conn.execute(
        """INSERT INTO project_role (project_id, id, name, permissions) VALUES ($1, $2, $3, $4)
           ON CONFLICT (project_id, id) DO UPDATE SET name = excluded.name, permissions = excluded.permissions""",
        project_id,
        role.id,
        role.name,
        sorted(role.permissions),
    )


async def delete(conn: Connection, project_id: str, role_id: str) -> None:
    """Raises NotFoundError; InUseError while somebody has it."""
    if await conn.fetchval(
        "SELECT EXISTS (SELECT FROM user_grant WHERE project_id = $1 AND role = $2)", project_id, role_id
    ):
        raise InUseError("role", role_id, "users")
    status = await conn.execute("DELETE FROM project_role WHERE project_id = $1 AND id = $2", project_id, role_id)
    if status == "DELETE 0":
        raise NotFoundError("role", role_id)
