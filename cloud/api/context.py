"""What the API works on, given by the composition root."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Collection
from typing import Annotated, Final, Protocol, cast

import msgspec
from fastapi import Depends, Request

from cloud.api.attempts import Attempts
from cloud.api.rates import Rates
from cloud.db.database import Database
from cloud.db.secrets import server_secret
from cloud.db.tenants import Tenants
from protocols.shipment import MessageBatch

SESSION_SECRET: Final = "session tokens"
"""The name of the key in the database that signs session tokens, so that all API processes take each other's."""


class LiveFeed(Protocol):
    """Messages as they are written: an ephemeral channel, which has no memory."""

    def subscribe(self, project_ids: Collection[str]) -> AsyncIterator[MessageBatch]:
        """Batches with messages of these projects, and perhaps of others beside them, from now on. The reader is
        expected to keep up; one that does not misses batches."""
        ...


class ApiSettings(msgspec.Struct, frozen=True):
    public_url: str = ""
    """Where gateways and browsers reach this server, such as https://cloud.example; empty: as the request came."""
    routable: frozenset[str] = frozenset({"writer"})
    """The topics that a message route may name."""
    requests_per_s_max: int = 500
    """Of one user or API key, over ten seconds."""


class ApiContext:
    """`database`: as its owner sees it, for who asks and which project they may see; all else goes by `tenants`.
    `wall_ms`: Unix milliseconds; `monotonic_s`: a clock that never goes back."""

    def __init__(
        self,
        database: Database,
        tenants: Tenants,
        live: LiveFeed,
        settings: ApiSettings,
        session_key: bytes,
        *,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.database = database
        self.tenants = tenants
        self.live = live
        self.settings = settings
        self.session_key = session_key
        self.wall_ms = wall_ms
        self.attempts = Attempts(monotonic_s)
        self.rates = Rates(settings.requests_per_s_max, monotonic_s)
        self.streams = 0
        """Clients that read the live stream now."""

    @classmethod
    async def open(cls, database: Database, live: LiveFeed, settings: ApiSettings) -> ApiContext:
        """With the session key of the (migrated) database. Raises DatabaseError."""
        async with database.transaction() as conn:
            key = await server_secret(conn, SESSION_SECRET)
        return cls(database, await Tenants.open(database), live, settings, key)

    async def close(self) -> None:
        await self.tenants.close()


async def _context(request: Request) -> ApiContext:
    """Asynchronous, as all dependencies are: FastAPI gives others to a thread."""
    return cast(ApiContext, request.app.state.context)


Context = Annotated[ApiContext, Depends(_context)]
