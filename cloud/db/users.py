"""Users: who may sign in."""

from __future__ import annotations

import datetime
import uuid
from typing import Final

from cloud.db.database import Connection, Database
from cloud.db.errors import NotFoundError, TakenError, violations
from cloud.db.passwords import PASSWORD_WORDS, hashed, matches, new_password
from cloud.db.secrets import new_secret, sha256_hex
from cloud.db.tenancy import Principal

NAME_CHARACTERS_MAX: Final = 64
SESSIONS_MAX: Final = 50
"""Of one user: a few devices and browsers; the oldest go."""


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
    await set_password(conn, name, password)
    return password


async def set_password(conn: Connection, name: str, password: str) -> None:
    """Sessions by the old one end. Raises NotFoundError."""
    status = await conn.execute(
        "UPDATE app_user SET password_argon2 = $2, session_version = session_version + 1 WHERE name = $1",
        name,
        await hashed(password),
    )
    if status == "UPDATE 0":
        raise NotFoundError("user", name)


async def anybody(conn: Connection) -> bool:
    """Whether there is a user at all."""
    return bool(await conn.fetchval("SELECT EXISTS (SELECT FROM app_user)"))


async def verify(database: Database, name: str, password: str) -> Principal | None:
    """The user, if that is their password. No connection waits for the hashing."""
    async with database.connection() as conn:
        row = await conn.fetchrow("SELECT id, admin, password_argon2 FROM app_user WHERE name = $1", name)
    if not await matches(password, row["password_argon2"] if row else None) or row is None:
        return None
    return Principal(name, row["id"], row["admin"])


async def open_session(conn: Connection, user_id: int, expires_at: datetime.datetime) -> tuple[uuid.UUID, int, str]:
    """(session, version of the user's sessions, refresh token)."""
    session_id, refresh = uuid.uuid4(), new_secret()
    version: int = await conn.fetchval("SELECT session_version FROM app_user WHERE id = $1 FOR UPDATE", user_id)
    await conn.execute(
        """DELETE FROM user_session WHERE user_id = $1 AND id NOT IN (
               SELECT id FROM user_session WHERE user_id = $1 ORDER BY created_at DESC LIMIT $2)""",
        user_id,
        SESSIONS_MAX - 1,
    )
    await conn.execute(
        "INSERT INTO user_session (id, user_id, refresh_sha256, expires_at) VALUES ($1, $2, $3, $4)",
        session_id,
        user_id,
        sha256_hex(refresh),
        expires_at,
    )
    return session_id, version, refresh


async def refresh(
    conn: Connection, token: str, now: datetime.datetime, expires_at: datetime.datetime
) -> tuple[uuid.UUID, int, int, str] | None:
    """(session, user, version of the user's sessions, next refresh token) for a refresh token, which holds once. None
    if it is nobody's, too old, or was used before: then its session ends."""
    digest = sha256_hex(token)
    row = await conn.fetchrow(
        """SELECT s.id, s.user_id, s.refresh_sha256, u.session_version FROM user_session s
           JOIN app_user u ON u.id = s.user_id
           WHERE $1 IN (s.refresh_sha256, s.used_sha256) AND s.expires_at > $2 FOR UPDATE OF s""",
        digest,
        now,
    )
    if row is None:
        return None
    if row["refresh_sha256"] != digest:
        await end_session(conn, row["id"])
        return None
    following = new_secret()
    await conn.execute(
        "UPDATE user_session SET refresh_sha256 = $2, used_sha256 = $3, expires_at = $4 WHERE id = $1",
        row["id"],
        sha256_hex(following),
        digest,
        expires_at,
    )
    return row["id"], row["user_id"], row["session_version"], following


async def end_session(conn: Connection, session_id: uuid.UUID) -> None:
    """Its tokens hold no more."""
    await conn.execute("DELETE FROM user_session WHERE id = $1", session_id)


async def of_session(conn: Connection, session_id: uuid.UUID, user_id: int, version: int) -> Principal | None:
    """The user, if the session still holds."""
    row = await conn.fetchrow(
        """SELECT u.name, u.admin FROM app_user u JOIN user_session s ON s.user_id = u.id
           WHERE s.id = $1 AND u.id = $2 AND u.session_version = $3""",
        session_id,
        user_id,
        version,
    )
    return None if row is None else Principal(row["name"], user_id, row["admin"])
