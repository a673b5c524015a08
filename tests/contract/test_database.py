"""The connections to PostgreSQL, and the schema that is brought up on them."""

from __future__ import annotations

import asyncio
import socket
from urllib.parse import urlsplit, urlunsplit

import pytest

from cloud.db.database import ATTEMPTS_MAX, Connection, Database, DatabaseBusyError, DatabaseDownError
from cloud.db.migrate import known_migrations, migrate
from tidegate.console import UserError

pytest_plugins = ("tests.contract.postgres",)


async def test_processes_that_start_together_migrate_once(empty_database_url: str) -> None:
    first, second = await asyncio.gather(*(Database.connect(empty_database_url) for _ in range(2)))
    applied = await asyncio.gather(migrate(first), migrate(second))
    assert sorted(one.number for found in applied for one in found) == [one.number for one in known_migrations()]
    assert await migrate(first) == []
    await asyncio.gather(first.close(), second.close())


async def test_a_database_of_a_newer_version_is_refused_with_a_remedy(new_database: Database) -> None:
    async with new_database.connection() as conn:
        await conn.execute("INSERT INTO schema_migration (number, name) VALUES (9999, 'from_the_future')")
    with pytest.raises(UserError, match="9999") as caught:
        await migrate(new_database)
    assert "newer" in caught.value.remedy


async def test_a_database_that_takes_no_tables_is_refused_with_a_remedy(empty_database_url: str) -> None:
    owner = await Database.connect(empty_database_url)
    async with owner.connection() as conn:
        await conn.execute("REVOKE CREATE ON SCHEMA public FROM public")  # the default from PostgreSQL 15 on
        await conn.execute("CREATE ROLE guest LOGIN PASSWORD 'guest'")
    try:
        place = urlsplit(empty_database_url)
        guest = await Database.connect(urlunsplit(place._replace(netloc=f"guest:guest@{place.hostname}:{place.port}")))
        with pytest.raises(UserError, match="permission denied for schema public") as caught:
            await migrate(guest)
        assert "GRANT CREATE ON SCHEMA public" in caught.value.remedy
        await guest.close()
    finally:
        async with owner.connection() as conn:
            await conn.execute("DROP ROLE guest")
        await owner.close()


async def test_a_deadlock_is_repeated_until_both_are_through(new_database: Database) -> None:
    async with new_database.connection() as conn:
        await conn.execute("CREATE TABLE tally (id integer PRIMARY KEY, n integer NOT NULL)")
        await conn.execute("INSERT INTO tally VALUES (1, 0), (2, 0)")
    both_hold_one = asyncio.Barrier(2)
    met: set[int] = set()

    async def add(conn: Connection, first: int, second: int) -> None:
        await conn.execute("UPDATE tally SET n = n + 1 WHERE id = $1", first)
        if first not in met:
            met.add(first)
            await both_hold_one.wait()
        await conn.execute("UPDATE tally SET n = n + 1 WHERE id = $1", second)

    await asyncio.gather(new_database.run(lambda conn: add(conn, 1, 2)), new_database.run(lambda conn: add(conn, 2, 1)))
    async with new_database.connection() as conn:
        assert [row["n"] for row in await conn.fetch("SELECT n FROM tally")] == [2, 2]


async def test_a_transaction_that_never_gets_through_is_given_up(database: Database) -> None:
    attempts = 0

    async def fail(conn: Connection) -> None:
        nonlocal attempts
        attempts += 1
        await conn.execute("DO $$ BEGIN RAISE serialization_failure; END $$")

    with pytest.raises(DatabaseBusyError):
        await database.run(fail)
    assert attempts == ATTEMPTS_MAX


async def test_a_connection_that_breaks_says_so_and_the_next_one_works(database: Database) -> None:
    with pytest.raises(DatabaseDownError):
        async with database.transaction() as conn:
            await conn.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    async with database.connection() as conn:
        assert await conn.fetchval("SELECT 1") == 1


async def test_our_own_errors_pass_through_a_transaction_and_undo_it(database: Database) -> None:
    async def fail(conn: Connection) -> None:
        await conn.execute("INSERT INTO project (id, name) VALUES ('demo', 'Demo')")
        raise ConnectionResetError("some other connection")

    with pytest.raises(ConnectionResetError):
        await database.run(fail)
    async with database.connection() as conn:
        assert await conn.fetchval("SELECT count(*) FROM project") == 0


async def test_an_unreachable_server_is_down() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(DatabaseDownError):
            await Database.connect(f"postgresql://nobody@127.0.0.1:{unused.getsockname()[1]}/none")


async def test_a_url_that_is_refused_is_for_the_user_to_mend(postgres_url: str) -> None:
    with pytest.raises(UserError, match="does not exist"):
        await Database.connect(urlunsplit(urlsplit(postgres_url)._replace(path="/no_such_database")))
    with pytest.raises(UserError, match="URL"):
        await Database.connect("mysql://127.0.0.1/tidegate")
