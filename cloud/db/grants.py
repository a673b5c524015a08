"""Who of the users may do what in a project. (An administrator may always mend a project that is without an owner.)"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from cloud.db.database import Connection
from cloud.db.errors import DanglingError, NotFoundError, violations
from cloud.db.tenancy import combined, permissions_of
from cloud.model.access import ROLES, Access


class Member(msgspec.Struct, frozen=True):
    """A user with access to a project."""

    name: str
    role: str | None
    """In the whole project."""
    systems: dict[str, str]
    """System to role."""


async def page(conn: Connection, project_id: str, *, after: str | None = None, limit: int) -> list[Member]:
    """By name."""
    found = await conn.fetch(
        """SELECT u.name, max(g.role) FILTER (WHERE g.system_id IS NULL) AS role,
                  array_agg(g.system_id::text ORDER BY g.system_id) FILTER (WHERE g.system_id IS NOT NULL) AS systems,
                  array_agg(g.role::text ORDER BY g.system_id) FILTER (WHERE g.system_id IS NOT NULL) AS roles
           FROM user_grant g JOIN app_user u ON u.id = g.user_id
           WHERE g.project_id = $1 AND ($2::text IS NULL OR u.name > $2)
           GROUP BY u.name ORDER BY u.name LIMIT $3""",
        project_id,
        after,
        limit,
    )
    return [
        Member(row["name"], row["role"], dict(zip(row["systems"] or (), row["roles"] or (), strict=True)))
        for row in found
    ]


async def get(conn: Connection, project_id: str, name: str) -> Member:
    """Raises NotFoundError."""
    user_id = await _user(conn, name)
    found = await conn.fetch(
        "SELECT system_id, role FROM user_grant WHERE user_id = $1 AND project_id = $2 ORDER BY system_id",
        user_id,
        project_id,
    )
    if not found:
        raise NotFoundError("user", name)
    whole = next((row["role"] for row in found if row["system_id"] is None), None)
    return Member(name, whole, {row["system_id"]: row["role"] for row in found if row["system_id"] is not None})


async def put(conn: Connection, project_id: str, member: Member) -> None:
    """In place of what the user had in this project. Raises NotFoundError, DanglingError."""
    user_id = await _user(conn, member.name)
    await conn.fetchval("SELECT id FROM project WHERE id = $1 FOR UPDATE", project_id)
    await access_of(conn, project_id, member)
    wanted: list[tuple[str | None, str]] = [*member.systems.items()]
    if member.role is not None:
        wanted.append((None, member.role))
    await conn.execute(
        """DELETE FROM user_grant WHERE user_id = $1 AND project_id = $2
           AND coalesce(system_id, '') <> ALL ($3::text[])""",
        user_id,
        project_id,
        [system_id or "" for system_id, _ in wanted],
    )
    for system_id, role in wanted:
        with violations({"grant_system": DanglingError("systems", "system", system_id)}):
            await conn.execute(
                """INSERT INTO user_grant (user_id, project_id, system_id, role) VALUES ($1, $2, $3, $4)
                   ON CONFLICT (user_id, project_id, system_id) DO UPDATE SET role = excluded.role
                   WHERE user_grant.role <> excluded.role""",
                user_id,
                project_id,
                system_id,
                role,
            )


async def delete(conn: Connection, project_id: str, name: str) -> None:
    """The user sees the project no more. Raises NotFoundError."""
    user_id = await _user(conn, name)
    await conn.fetchval("SELECT id FROM project WHERE id = $1 FOR UPDATE", project_id)
    status = await conn.execute("DELETE FROM user_grant WHERE user_id = $1 AND project_id = $2", user_id, project_id)
    if status == "DELETE 0":
        raise NotFoundError("user", name)


async def access_of(conn: Connection, project_id: str, member: Member) -> Access:
    """What these roles amount to. Raises DanglingError for a role that the project does not have."""
    own = {
        row["id"]: row["permissions"]
        for row in await conn.fetch("SELECT id, permissions FROM project_role WHERE project_id = $1", project_id)
    }
    granted: list[tuple[str | None, str]] = [*member.systems.items()]
    if member.role is not None:
        granted.append((None, member.role))
    return combined([(system_id, permissions_of(role, _known(own, role))) for system_id, role in granted])


def _known(own: dict[str, Sequence[str]], role: str) -> Sequence[str] | None:
    if role not in ROLES and role not in own:
        raise DanglingError("role", "role", role)
    return own.get(role)


async def _user(conn: Connection, name: str) -> int:
    user_id: int | None = await conn.fetchval("SELECT id FROM app_user WHERE name = $1", name)
    if user_id is None:
        raise NotFoundError("user", name)
    return user_id
