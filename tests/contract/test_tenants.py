"""What PostgreSQL itself shows to the API's role, whatever a statement asks for: the rows of one project."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from cloud.db import tenants
from cloud.db.database import Connection, Database
from cloud.db.tenants import Tenants

pytest_plugins = ("tests.contract.postgres",)

_OF_PROJECTS = """
    SELECT c.oid::regclass::text AS name, c.relrowsecurity AS guarded,
           (SELECT array_agg(attname::text) FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0) AS columns
    FROM pg_class c WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition"""
UNSEEN = {"app_user", "server_secret", "schema_migration", "unsent", "user_session", "curator_schedule", "rollup_week"}
"""What the API's role sees nothing of: users and secrets are looked at by the owner, before there is a project."""


@contextlib.asynccontextmanager
async def asked_directly(database: Database, project_id: str) -> AsyncIterator[Connection]:
    """A transaction under the API's role, and nothing else of the API."""
    async with database.transaction() as conn:
        await conn.execute(f"SET LOCAL ROLE {tenants.ROLE}")
        await conn.execute("SELECT set_config('tidegate.project', $1, true)", project_id)
        yield conn


async def _tables(database: Database) -> list[asyncpg.Record]:
    async with database.connection() as conn:
        return [row for row in await conn.fetch(_OF_PROJECTS) if row["name"] not in UNSEEN]


@pytest_asyncio.fixture
async def two_projects(database: Database) -> Database:
    """A row of every table in each of the projects `ours` and `theirs`, as far as columns can be made up."""
    async with database.transaction() as conn:
        await conn.execute("SET LOCAL session_replication_role = replica")  # without looking at references
        for table in await _tables(database):
            columns = await conn.fetch(
                """SELECT a.attname AS name, format_type(coalesce(nullif(t.typbasetype, 0), a.atttypid), NULL) AS type
                   FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
                   WHERE a.attrelid = $1::text::regclass AND a.attnum > 0 AND NOT a.attisdropped
                         AND (a.attnotnull OR a.attname = 'project_id')
                         AND (NOT a.atthasdef OR a.attidentity <> '') AND a.attgenerated = ''""",
                table["name"],
            )
            for number, project_id in enumerate(("ours", "theirs"), 1):
                made = {column["name"]: _made_up(column["type"], project_id, number) for column in columns}
                made |= await _constrained(conn, table["name"], project_id)
                names = ", ".join(made)
                await conn.execute(
                    f"INSERT INTO {table['name']} ({names}) OVERRIDING SYSTEM VALUE VALUES ({', '.join(made.values())})"
                )
        await conn.execute("SELECT setval(pg_get_serial_sequence('audit', 'seq'), 1000)")
    return database


def _made_up(kind: str, project_id: str, number: int) -> str:
    """A literal of this type, different in each project."""
    made = {
        "text": f"'{project_id}'",
        "jsonb": "'{}'",
        "uuid": f"'{number:032x}'",
        "bytea": f"'\\x{number:02x}'",
        "boolean": "true",
        "text[]": "'{}'",
        "date": "'2026-03-01'",
        "timestamp with time zone": "'2026-03-01T00:00:00Z'",
        "int8multirange": "'{}'",
    }
    return made.get("text[]" if kind.endswith("[]") else kind, str(number))


async def _constrained(conn: Connection, table: str, project_id: str) -> dict[str, str]:
    """The first value that a check of the form `column IN (…)` allows, and what else a table's checks want."""
    found = await conn.fetch(
        """SELECT substring(pg_get_constraintdef(oid) FROM '\\(\\(+(\\w+) = ANY') AS name,
                  substring(pg_get_constraintdef(oid) FROM 'ARRAY\\[''(\\w+)''') AS value
           FROM pg_constraint WHERE conrelid = $1::text::regclass AND contype = 'c'""",
        table,
    )
    made = {row["name"]: f"'{row['value']}'" for row in found if row["name"] and row["value"]}
    if table == "source":
        made["gateway_id"] = f"'{project_id}'"
    if table == "gap":
        made["end_seq"] = "1000"
    return made


async def test_every_table_with_rows_of_projects_is_guarded(database: Database) -> None:
    """A new table is given to the API's role by `tenant_table`, or named above with its reason."""
    assert [table["name"] for table in await _tables(database) if not table["guarded"]] == []


async def test_the_role_sees_the_rows_of_the_project_that_the_connection_names(two_projects: Database) -> None:
    for table in await _tables(two_projects):
        async with two_projects.connection() as conn:
            assert await conn.fetchval(f"SELECT count(*) FROM {table['name']}") == 2, table["name"]
        async with asked_directly(two_projects, "ours") as conn:
            rows = await conn.fetch(f"SELECT * FROM {table['name']}")
        assert len(rows) == 1, table["name"]
        owner = rows[0].get("project_id", rows[0].get("id") if table["name"] == "project" else None)
        assert owner in ("ours", None), table["name"]


@pytest.mark.parametrize("project_id", ["", "another", "ours' OR true --"])
async def test_a_project_that_is_not_there_has_no_rows(two_projects: Database, project_id: str) -> None:
    for table in await _tables(two_projects):
        async with asked_directly(two_projects, project_id) as conn:
            assert await conn.fetchval(f"SELECT count(*) FROM {table['name']}") == 0, table["name"]


async def test_the_role_changes_no_other_project(two_projects: Database) -> None:
    async with asked_directly(two_projects, "ours") as conn:
        assert await conn.execute("UPDATE device SET name = 'taken'") == "UPDATE 1"
        assert await conn.execute("DELETE FROM history WHERE project_id = 'theirs'") == "DELETE 0"
    async with two_projects.connection() as conn:
        assert await conn.fetchval("SELECT name FROM device WHERE project_id = 'theirs'") == "theirs"
        assert await conn.fetchval("SELECT count(*) FROM history") == 2
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        async with asked_directly(two_projects, "ours") as conn:
            await conn.execute("INSERT INTO twin VALUES ('theirs', 2, '{}', 2, 2)")


@pytest.mark.parametrize("table", sorted(UNSEEN))
async def test_users_and_secrets_are_not_for_the_role(database: Database, table: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied"):
        async with asked_directly(database, "ours") as conn:
            await conn.fetch(f"SELECT * FROM {table}")


async def test_a_connection_changes_its_project_with_its_user(two_projects: Database) -> None:
    """The pool's connections go from one project's requests to another's."""
    pool = await Tenants.open(two_projects)
    try:
        for project_id in ("ours", "theirs", "ours", "nobody"):
            async with pool.of(project_id, "user:anna").connection() as conn:
                found = [row["name"] for row in await conn.fetch("SELECT name FROM device")]
            assert found == ([project_id] if project_id != "nobody" else [])
    finally:
        await pool.close()
