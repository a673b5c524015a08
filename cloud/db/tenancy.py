"""Which projects a user sees. What a user does not see does not exist for them."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from cloud.db.database import Connection
from cloud.db.errors import NotFoundError

Role = Literal["editor", "viewer"]

VISIBLE: Final = """($1::boolean OR EXISTS (
    SELECT FROM user_project u WHERE u.user_id = $2::bigint AND u.project_id = p.id))"""
"""A condition on `project p`; $1 and $2 are the viewer's `admin` and `user_id`."""


class Viewer(msgspec.Struct, frozen=True):
    """A user who asks. An administrator sees and edits every project."""

    user_id: int
    name: str
    admin: bool


async def role(conn: Connection, viewer: Viewer, project_id: str) -> Role:
    """Raises NotFoundError if the viewer does not see the project, whether or not it exists."""
    found: Role | None = await conn.fetchval(
        """SELECT CASE WHEN $1 THEN 'editor' ELSE u.role END FROM project p
           LEFT JOIN user_project u ON u.project_id = p.id AND u.user_id = $2 WHERE p.id = $3""",
        viewer.admin,
        viewer.user_id,
        project_id,
    )
    if found is None:
        raise NotFoundError("project", project_id)
    return found


async def visible(conn: Connection, viewer: Viewer, limit: int) -> list[str]:
    """Up to `limit` ids of projects that the viewer sees, by id."""
    found = await conn.fetch(
        f"SELECT id FROM project p WHERE {VISIBLE} ORDER BY id LIMIT $3", viewer.admin, viewer.user_id, limit
    )
    return [row["id"] for row in found]


async def project_of_device(conn: Connection, viewer: Viewer, device_id: int) -> str:
    """Raises NotFoundError if there is no such device in a project that the viewer sees."""
    found: str | None = await conn.fetchval(
        f"SELECT p.id FROM project p JOIN device d ON d.project_id = p.id WHERE {VISIBLE} AND d.id = $3",
        viewer.admin,
        viewer.user_id,
        device_id,
    )
    if found is None:
        raise NotFoundError("device", device_id)
    return found
