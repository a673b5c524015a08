"""Brings the database's schema to this version, by numbered SQL files."""

from __future__ import annotations

import re
from importlib import resources
from typing import Final

import asyncpg
import msgspec

from cloud.db.database import Connection, Database
from tidegate.console import UserError

MIGRATION_TIMEOUT_S: Final = 3600.0
"""One migration, waiting for another process's included: rewriting a large table takes minutes."""
LOCK: Final = 0x7469646567617465
"""The advisory lock (the letters "tidegate") that lets one process migrate while the others wait."""

_FILE: Final = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_TABLE: Final = """
    CREATE TABLE IF NOT EXISTS schema_migration (
        number     integer PRIMARY KEY,
        name       text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now()
    )"""


class Migration(msgspec.Struct, frozen=True, order=True):
    number: int
    name: str
    sql: str


def known_migrations() -> list[Migration]:
    """Those that come with this version, in order, numbered 1, 2, 3, …"""
    found = []
    for file in resources.files("cloud.db.migrations").iterdir():
        match = _FILE.fullmatch(file.name)
        if match:
            found.append(Migration(int(match[1]), match[2], file.read_text(encoding="utf-8")))
    found.sort()
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        raise AssertionError(f"migrations are not numbered 1, 2, 3, …: {[one.number for one in found]}")
    return found


async def migrate(database: Database) -> list[Migration]:
    """Applies what is missing, each file in a transaction of its own, and gives what it applied. Safe to call from
    several processes at once. Raises UserError if the database is newer than this version, or takes no tables."""
    known = known_migrations()
    applied = []
    try:
        for migration in known:
            async with database.transaction() as conn:
                if await _apply(conn, migration, known):
                    applied.append(migration)
    except asyncpg.InsufficientPrivilegeError as error:
        raise UserError(
            f"the database's schema cannot be made: {error}",
            "let the user that database.url names own the database, or GRANT CREATE ON SCHEMA public to it",
        ) from None
    return applied


async def _apply(conn: Connection, migration: Migration, known: list[Migration]) -> bool:
    await conn.execute("SET LOCAL statement_timeout = 0")
    await conn.execute(f"SELECT pg_advisory_xact_lock({LOCK})", timeout=MIGRATION_TIMEOUT_S)
    await conn.execute(_TABLE)
    newest: int = await conn.fetchval("SELECT coalesce(max(number), 0) FROM schema_migration")
    if newest > known[-1].number:
        raise UserError(
            f"the database's schema has number {newest}; this version of tidegate-cloud knows {known[-1].number}",
            "start the version that was last used with this database, or a newer one",
        )
    if migration.number <= newest:
        return False
    await conn.execute(migration.sql, timeout=MIGRATION_TIMEOUT_S)
    await conn.execute("INSERT INTO schema_migration (number, name) VALUES ($1, $2)", migration.number, migration.name)
    return True
