"""A PostgreSQL for tests: the embedded one, in a folder of its own. Each test that asks for a database gets it without
any row; those that change the schema ask for a new one.

A test module takes these fixtures by `pytest_plugins = ("tests.contract.postgres",)`.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
import pytest_asyncio

from cloud.db.database import Database
from cloud.db.migrate import migrate
from cloud.engines.engine import EmbeddedEngine
from cloud.engines.postgres import Postgres

PORT = 17432
"""Or the next free one."""
TEMPLATE = "migrated"
_numbers = itertools.count(1)
_EMPTY = """
    DO $$ DECLARE name text; BEGIN
        SET LOCAL session_replication_role = replica;  -- without looking at references
        FOR name IN SELECT oid::regclass FROM pg_class WHERE relnamespace = 'public'::regnamespace
            AND relkind IN ('r', 'p') AND NOT relispartition AND relname <> 'schema_migration'
        LOOP EXECUTE 'DELETE FROM ' || name; END LOOP;
    END $$"""
"""A few milliseconds; making a database takes up to a second."""


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of the server, with a database that is not to be changed."""
    directory = Path(tempfile.mkdtemp(prefix="tidegate-test-"))
    directory.chmod(0o755)
    engine = EmbeddedEngine(
        Postgres(), directory / "postgresql", directory / "postgresql.log", PORT, lambda _name, _text: None
    )
    with asyncio.Runner() as runner:
        runner.run(engine.start())
        try:
            runner.run(_make_template(engine.url))
            yield engine.url
        finally:
            runner.run(engine.stop())
            shutil.rmtree(directory)


async def _make_template(url: str) -> None:
    await _execute(url, f"CREATE DATABASE {TEMPLATE}")
    database = await Database.connect(_of(url, TEMPLATE))
    await migrate(database)
    await database.close()


@pytest_asyncio.fixture
async def empty_database_url(postgres_url: str) -> AsyncIterator[str]:
    """A database without any table."""
    async for url in _new_database(postgres_url, "template1"):
        yield url


@pytest_asyncio.fixture
async def new_database(postgres_url: str) -> AsyncIterator[Database]:
    """A migrated database of the test's own."""
    async for url in _new_database(postgres_url, TEMPLATE):
        database = await Database.connect(url)
        yield database
        await database.close()


@pytest.fixture(scope="session")
def shared_database_url(postgres_url: str) -> str:
    asyncio.run(_execute(postgres_url, f"CREATE DATABASE shared TEMPLATE {TEMPLATE}"))
    return _of(postgres_url, "shared")


@pytest_asyncio.fixture
async def database_url(shared_database_url: str) -> str:
    """A migrated database without any row."""
    await _execute(shared_database_url, _EMPTY)
    return shared_database_url


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = await Database.connect(database_url)
    yield database
    await database.close()


async def _new_database(url: str, template: str) -> AsyncIterator[str]:
    name = f"test_{next(_numbers)}"
    await _execute(url, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield _of(url, name)
    await _execute(url, f"DROP DATABASE {name} WITH (FORCE)")


async def _execute(url: str, statement: str) -> None:
    conn = await asyncpg.connect(url)
    try:
        await conn.execute(statement)
    finally:
        await conn.close()


def _of(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
