"""Users: who may sign in, and to which projects."""

from __future__ import annotations

from typing import Final

from cloud.db.database import Connection, Database
from cloud.db.errors import NotFoundError, TakenError, violations
from cloud.db.passwords import PASSWORD_WORDS, hashed, matches, new_password
from cloud.db.tenancy import Role, Viewer

NAME_CHARACTERS_MAX: Final = 64


async def create(conn: Connection, name: str, *, admin: bool = False, words: int = PASSWORD_WORDS) -> str:
    """The new user's password, which is shown once. Raises TakenError."""
    password = new_password(words)
    kept = await hashed(password)
    with violations({"app_user_name_key": TakenError("name", f"user {name}")}):
        await conn.execute("INSERT INTO app_user (name, password_argon2, admin) VALUES ($1, $2, $3)", name, kept, admin)
    return password


async def reset(conn: Connection, name: str, *, words: int = PASSWORD_WORDS) -> str:
    """A new password for the user, which is shown once; sessions by the old one end. Raises NotFoundError."""
    password = new_password(words)
    status = await conn.execute(
        "UPDATE app_user SET password_argon2 = $2, session_version = session_version + 1 WHERE name = $1",
        name,
        await hashed(password),
    )
    if status == "UPDATE 0":
        raise NotFoundError("user", name)
    return password


async def anybody(conn: Connection) -> bool:
    """Whether there is a user at all."""
    return bool(await conn.fetchval("SELECT EXISTS (SELECT FROM app_user)"))


async def grant(conn: Connection, name: str, project_id: str, role: Role) -> None:
    """Lets the user see the project, and change it as an editor. Raises NotFoundError."""
    user_id = await conn.fetchval("SELECT id FROM app_user WHERE name = $1", name)
    if user_id is None:
        raise NotFoundError("user", name)
    with violations({"user_project_project_id_fkey": NotFoundError("project", project_id)}):
        await conn.execute(
            """INSERT INTO user_project (user_id, project_id, role) VALUES ($1, $2, $3)
               ON CONFLICT (user_id, project_id) DO UPDATE SET role = excluded.role""",
            user_id,
            project_id,
            role,
        )


async def verify(database: Database, name: str, password: str) -> tuple[Viewer, int] | None:
    """The user and the version of their sessions, if that is their password. No connection waits for the hashing."""
    async with database.connection() as conn:
        row = await conn.fetchrow(
            "SELECT id, admin, password_argon2, session_version FROM app_user WHERE name = $1", name
        )
    if not await matches(password, row["password_argon2"] if row else None) or row is None:
        return None
    return Viewer(row["id"], name, row["admin"]), row["session_version"]


async def of_session(conn: Connection, user_id: int, version: int) -> Viewer | None:
    """The user, if sessions of that version still hold."""
    row = await conn.fetchrow(
        "SELECT name, admin FROM app_user WHERE id = $1 AND session_version = $2", user_id, version
    )
    return None if row is None else Viewer(user_id, row["name"], row["admin"])
