"""Databases of one project each: PostgreSQL itself keeps other projects' rows from them (row-level security)."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Final

from cloud.db.database import Connection, Connections, Database

ROLE: Final = "tidegate_api"
"""Made by the migration `tenants`, which says what it may."""
CONNECTIONS_MAX: Final = 8
"""Of one process's API, beside those of its services."""
_SAY: Final = "SELECT set_config('tidegate.project', $1, false), set_config('tidegate.actor', $2, false)"


class Tenants:
    """A pool of connections that see the rows of one project at a time."""

    def __init__(self) -> None:
        self._database: Database
        self._said: dict[int, tuple[str, str]] = {}

    @classmethod
    async def open(cls, owner: Database) -> Tenants:
        """Beside the (migrated) database as its owner sees it. Raises DatabaseError."""
        tenants = cls()
        tenants._database = await owner.apart(CONNECTIONS_MAX, role=ROLE, opened=tenants._forget)
        return tenants

    async def close(self) -> None:
        await self._database.close()

    def of(self, project_id: str, actor: str) -> Connections:
        """The database as this project sees it. `actor`: who works on it, for the audit trail."""
        return _Tenant(self, project_id, actor)

    @contextlib.asynccontextmanager
    async def connection(self, project_id: str, actor: str) -> AsyncIterator[Connection]:
        async with self._database.connection() as conn:
            backend, said = conn.get_server_pid(), (project_id, actor)
            if self._said.get(backend) != said:
                self._forget(backend)
                await conn.execute(_SAY, *said)
                self._said[backend] = said
            yield conn

    def _forget(self, backend: int) -> None:
        self._said.pop(backend, None)


class _Tenant(Connections):
    def __init__(self, tenants: Tenants, project_id: str, actor: str) -> None:
        self._tenants = tenants
        self._project_id = project_id
        self._actor = actor

    def connection(self) -> contextlib.AbstractAsyncContextManager[Connection]:
        return self._tenants.connection(self._project_id, self._actor)
