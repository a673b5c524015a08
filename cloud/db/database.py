"""The connections to PostgreSQL: a bounded pool, transactions, and errors whose type says what to do."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Final, Literal, Self, TypeAlias, TypeVar, cast

import asyncpg

from cloud.model.claim import OvertakenError
from tidegate.console import UserError

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
T = TypeVar("T")
Isolation = Literal["read_committed", "repeatable_read", "serializable"]

CONNECTIONS_MAX: Final = 12
"""Of one process: two services and three shipments of the receiver hold five; the API has others beside them. Four
processes, each with the one that it has for backfill, fit in PostgreSQL's default of 100."""
CONNECT_TIMEOUT_S: Final = 10.0
"""To open a connection: a reachable server answers in milliseconds, one in crash recovery refuses at once."""
ACQUIRE_TIMEOUT_S: Final = 30.0
"""To wait for a free connection: longer means that every connection is stuck, and waiting on would hide it."""
STATEMENT_TIMEOUT_S: Final = 60.0
"""The server ends a statement that runs longer: nothing here takes more than seconds unless something is wrong."""
COMMAND_TIMEOUT_S: Final = STATEMENT_TIMEOUT_S + 5.0
"""Ours, for a server that does not answer at all; longer, so that the server's own, better told, comes first."""
IDLE_TRANSACTION_TIMEOUT_S: Final = 120.0
"""The server ends a transaction whose owner hangs: its locks would stop everyone else."""
ATTEMPTS_MAX: Final = 8
"""Of one transaction that meets deadlocks or serialization failures: with the waits below, about 2 s altogether."""
WAIT_FIRST_S: Final = 0.01
WAIT_MAX_S: Final = 0.5


class DatabaseError(Exception):
    """What PostgreSQL could not do for us now."""


class DatabaseDownError(DatabaseError):
    """Retry later: the server cannot be reached, is starting or stopping, or did not answer in time. Whether a
    transaction that was being committed is in, nobody knows: what is repeated must be idempotent."""


class DatabaseSlowError(DatabaseDownError):
    """A statement took longer than STATEMENT_TIMEOUT_S, and was ended: a smaller one may not."""


class DatabaseBusyError(DatabaseError):
    """Retry later: a transaction met deadlocks or serialization failures ATTEMPTS_MAX times; nothing was changed."""


_CONTENTION: Final = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError, OvertakenError)
_DOWN: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.IdleSessionTimeoutError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TooManyConnectionsError,
    TimeoutError,
)


class Connections(abc.ABC):
    """Where connections come from, and transactions on them."""

    @abc.abstractmethod
    def connection(self) -> contextlib.AbstractAsyncContextManager[Connection]:
        """A connection without a transaction: each statement is one of its own."""

    @contextlib.asynccontextmanager
    async def transaction(
        self, *, isolation: Isolation = "read_committed", readonly: bool = False
    ) -> AsyncIterator[Connection]:
        """A connection in a transaction, which commits when the block ends and rolls back when it raises."""
        async with self.connection() as conn, conn.transaction(isolation=isolation, readonly=readonly):
            yield conn

    async def run(self, work: Callable[[Connection], Awaitable[T]], *, isolation: Isolation = "read_committed") -> T:
        """Runs `work` in a transaction and gives what it gives; repeats both after a deadlock or serialization failure,
        so that `work` must be free of other effects. Raises DatabaseBusyError after ATTEMPTS_MAX."""
        wait_s = WAIT_FIRST_S
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                async with self.transaction(isolation=isolation) as conn:
                    return await work(conn)
            except _CONTENTION as error:
                if attempt == ATTEMPTS_MAX:
                    raise DatabaseBusyError(f"gave up after {attempt} attempts: {error}") from error
            await asyncio.sleep(random.uniform(wait_s / 2, wait_s))
            wait_s = min(2 * wait_s, WAIT_MAX_S)
        raise AssertionError("unreachable: the last attempt returns or raises")


class Database(Connections):
    """A pool of connections to one PostgreSQL database. `jsonb` goes in and out as its text, so that messages pass
    through without being parsed."""

    def __init__(self, url: str, pool: Pool) -> None:
        self._url = url
        self._pool = pool

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        connections_max: int = CONNECTIONS_MAX,
        niceness: int = 0,
        role: str | None = None,
        opened: Callable[[int], None] = lambda _backend: None,
    ) -> Self:
        """Opens the pool with one connection, so that a wrong URL is known at once. Raises UserError for a URL that the
        server does not accept, DatabaseDownError where there is no server.

        `niceness`: of the server's processes for this pool; for an embedded PostgreSQL only, whose processes are here.
        `role`: whose rights the connections have, instead of those of the URL's user.
        `opened`: told the server's process for each connection that is new.
        """

        async def begin(conn: Connection) -> None:
            backend = conn.get_server_pid()
            opened(backend)
            if niceness:
                with contextlib.suppress(OSError):  # as another user than the server's, who may not
                    os.setpriority(os.PRIO_PROCESS, backend, niceness)

        with _refused(), _as_down(None):
            pool = await asyncpg.create_pool(
                url,
                min_size=1,
                max_size=connections_max,
                init=begin,
                reset=_keep,
                timeout=CONNECT_TIMEOUT_S,
                command_timeout=COMMAND_TIMEOUT_S,
                server_settings=_server_settings() | ({"role": role} if role else {}),
            )
        return cls(url, pool)

    async def apart(
        self,
        connections_max: int,
        *,
        role: str | None = None,
        opened: Callable[[int], None] = lambda _backend: None,
    ) -> Database:
        """Another pool to the same database: for work that others wait for while they hold a connection of this one, or
        under a role of its own."""
        return await Database.connect(self._url, connections_max=connections_max, role=role, opened=opened)

    async def close(self) -> None:
        """Waits for the connections in use; after CONNECT_TIMEOUT_S they are cut."""
        try:
            await asyncio.wait_for(self._pool.close(), CONNECT_TIMEOUT_S)
        except TimeoutError:
            self._pool.terminate()

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        with _as_down(None):
            proxy = await self._pool.acquire(timeout=ACQUIRE_TIMEOUT_S)
        conn = cast("Connection", proxy)
        try:
            with _as_down(conn):
                yield conn
        finally:
            with _as_down(None):
                await self._pool.release(proxy, timeout=CONNECT_TIMEOUT_S)

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[Connection]:
        """A connection outside of the pool, for what holds one for long: LISTEN, an advisory lock."""
        with _as_down(None):
            conn = await asyncpg.connect(
                self._url,
                timeout=CONNECT_TIMEOUT_S,
                command_timeout=COMMAND_TIMEOUT_S,
                server_settings=_server_settings(),
            )
        try:
            with _as_down(conn):
                yield conn
        finally:
            with _as_down(None):
                await conn.close(timeout=CONNECT_TIMEOUT_S)


def _server_settings() -> dict[str, str]:
    return {
        "application_name": "tidegate-cloud",
        "statement_timeout": str(round(STATEMENT_TIMEOUT_S * 1000)),
        "idle_in_transaction_session_timeout": str(round(IDLE_TRANSACTION_TIMEOUT_S * 1000)),
        "timezone": "UTC",
    }


async def _keep(_conn: Connection) -> None:
    """Nothing to reset: sessions of the pool have no state (LISTEN and session locks belong on `Database.session`), and
    the round trip that asyncpg would spend on it doubles the price of a small read."""


@contextlib.contextmanager
def _refused() -> Iterator[None]:
    try:
        yield
    except (asyncpg.ClientConfigurationError, ValueError) as error:
        raise UserError(f"the database URL: {error}", "write it as postgresql://user:password@host:port/name") from None
    except (
        asyncpg.InvalidAuthorizationSpecificationError,
        asyncpg.InvalidCatalogNameError,
        asyncpg.InsufficientPrivilegeError,
    ) as error:
        raise UserError(
            f"PostgreSQL refused the connection: {error}", "check user, password and name in the database URL"
        ) from None


@contextlib.contextmanager
def _as_down(conn: Connection | None) -> Iterator[None]:
    """Names what means that the server is gone. `conn`: the connection that the block uses; while one is being opened
    or given back there is none, and then the network's own errors count too."""
    try:
        yield
    except asyncpg.QueryCanceledError as error:
        raise DatabaseSlowError(f"PostgreSQL: {error}") from error
    except _DOWN as error:
        raise DatabaseDownError(f"PostgreSQL: {error or type(error).__name__}") from error
    except asyncpg.ClientConfigurationError:
        raise
    except asyncpg.InternalClientError as error:
        # The server's last word came between two of ours, and asyncpg lost its place: of no use from here on.
        if conn is not None and not _is_gone(conn):
            conn.terminate()
        raise DatabaseDownError(f"PostgreSQL: {error}") from error
    except (asyncpg.InterfaceError, OSError) as error:
        if conn is not None and not _is_gone(conn):
            raise
        raise DatabaseDownError(f"PostgreSQL: {error}") from error


def _is_gone(conn: Connection) -> bool:
    try:
        return conn.is_closed()
    except asyncpg.InterfaceError:  # the pool has taken a broken connection back already
        return True
