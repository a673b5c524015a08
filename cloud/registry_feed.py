"""The registry as the cloud's services hold it: a replica of each project that they work for, never more than a moment
behind the database, and its changes for the gateways' replicas.

PostgreSQL's NOTIFY says at once that a project has changed; looking at all projects' revisions every few seconds finds
what a lost notification missed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final

from cloud.db.database import Connection, Database, DatabaseError
from cloud.db.errors import NotFoundError
from cloud.db.registry import newest_change, revisions
from cloud.db.revision import CHANNEL
from sync.registry import Registry, RegistryChange
from tidegate.logs import get_logger

POLL_S: Final = 5.0
"""How long a change stays unseen at most if its notification is lost."""
LINGER_S: Final = 0.02
"""Changes that come in quick succession, as when devices are imported, are read together."""
RETRY_S: Final = 1.0
"""Between attempts to reach the database."""
CONNECTIONS_MAX: Final = 2
"""Of its own: the processor asks for a refresh while it holds a connection of the common pool, maybe the last one."""
CHANGES_KEPT: Final = 64
"""The last changes of a project, for sessions that follow it; one further behind is served by the database."""

log = get_logger("cloud.registry_feed")


class _Held:
    """One project's replica, and how it came to where it stands."""

    def __init__(self, project_id: str) -> None:
        self.registry = Registry(project_id)
        self.recent: deque[RegistryChange] = deque(maxlen=CHANGES_KEPT)
        self.lock = asyncio.Lock()
        self.changed = asyncio.Event()

    def apply(self, change: RegistryChange) -> None:
        self.registry.apply(change)
        if change.base == 0:
            self.recent.clear()
        else:
            self.recent.append(change)
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()

    def since(self, base: int) -> list[RegistryChange] | None:
        """The changes that lead on from `base`; None where they are not all here."""
        behind = [change for change in self.recent if change.revision > base]
        return behind if behind and behind[0].base <= base else None


class RegistryFeed:
    """The registries that it gives are its own: they change in place, between two awaits of whoever reads them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._held: dict[str, _Held] = {}
        self._revisions: dict[str, int] = {}
        self._dirty: set[str] = set()
        self._wake = asyncio.Event()
        self._callbacks: list[Callable[[str], None]] = []

    @classmethod
    async def open(cls, database: Database) -> RegistryFeed:
        """A feed with connections of its own to that database; `run` makes it follow. Raises DatabaseError."""
        return cls(await database.apart(CONNECTIONS_MAX))

    async def run(self, stop: asyncio.Event) -> None:
        """Follows the database's changes until `stop`; waits out a database that is down."""
        tasks = [asyncio.ensure_future(work) for work in (stop.wait(), self._listen(), self._follow())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        await self._database.close()

    def on_change(self, callback: Callable[[str], None]) -> None:
        """Calls it with the project's id after each change that was seen, of any project; several may be one call."""
        self._callbacks.append(callback)

    async def registry(self, project_id: str) -> Registry:
        """The project's replica. Raises NotFoundError, DatabaseError."""
        held = self._held.get(project_id)
        if held is None or held.registry.revision == 0:
            held = await self._refreshed(project_id, 1)
        return held.registry

    async def refresh(self, project_id: str, at_least_revision: int) -> Registry:
        """The project's replica, once it stands at that revision, which is committed, or a later one. Raises
        NotFoundError, DatabaseError."""
        return (await self._refreshed(project_id, at_least_revision)).registry

    async def changes(self, project_id: str, base: int) -> AsyncIterator[RegistryChange]:
        """What leads a replica on from revision `base` (0: it has nothing), then each change as it comes; without end.
        From a base that this project has not reached, as after a restore, it leads by a snapshot. Raises NotFoundError,
        DatabaseError: ask again from where the last change ended."""
        held = await self._refreshed(project_id, base)
        while True:
            changed = held.changed
            if base > held.registry.revision:
                base = 0
            while base < held.registry.revision:
                for change in await self._leading_on(held, base):
                    yield change
                    base = change.revision
            await changed.wait()

    async def _leading_on(self, held: _Held, base: int) -> list[RegistryChange]:
        if base == 0:
            return [held.registry.snapshot()]
        recent = held.since(base)
        if recent is not None:
            return recent
        return [await newest_change(self._database, held.registry.project_id, base)]

    async def _refreshed(self, project_id: str, at_least_revision: int) -> _Held:
        held = self._held.setdefault(project_id, _Held(project_id))
        async with held.lock:
            stands_at = held.registry.revision
            if stands_at < at_least_revision or stands_at == 0:
                try:
                    change = await newest_change(self._database, project_id, stands_at)
                except NotFoundError:
                    self._held.pop(project_id, None)
                    raise
                if change.base == 0 or change.revision > stands_at:
                    held.apply(change)
        return held

    async def _follow(self) -> None:
        """Reads the changes of projects that are said to have some."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            dirty, self._dirty = self._dirty, set()
            for project_id in sorted(dirty):
                held = self._held.get(project_id)
                try:
                    if held is not None:
                        await self._refreshed(project_id, held.registry.revision + 1)
                except (DatabaseError, NotFoundError) as error:
                    log.warning("registry not refreshed", project=project_id, reason=str(error))
                    self._revisions.pop(project_id, None)  # so that the next look finds it again
                    continue
                for callback in self._callbacks:
                    callback(project_id)
            await asyncio.sleep(LINGER_S)

    async def _listen(self) -> None:
        """Keeps a session that hears of changes; looks for itself when it opens, and every POLL_S."""
        deaf = False
        while True:
            try:
                async with self._database.session() as conn:
                    lost = asyncio.Event()
                    conn.add_termination_listener(lambda _, lost=lost: lost.set())
                    await conn.add_listener(CHANNEL, self._notified)
                    if deaf:
                        log.info("registry changes heard again")
                        deaf = False
                    while not lost.is_set():
                        await self._look(conn)
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout(POLL_S):
                                await lost.wait()
            except DatabaseError as error:
                if not deaf:
                    log.warning("registry changes not heard", reason=str(error), retry_s=RETRY_S)
                    deaf = True
            await asyncio.sleep(RETRY_S)

    def _notified(self, _conn: object, _pid: int, _channel: str, project_id: object) -> None:
        self._mark(str(project_id))

    async def _look(self, conn: Connection) -> None:
        found = await revisions(conn)
        for project_id, revision in found.items():
            held = self._held.get(project_id)
            seen = held.registry.revision if held else self._revisions.get(project_id, 0)
            if seen != revision:
                self._mark(project_id)
        self._revisions = found

    def _mark(self, project_id: str) -> None:
        self._dirty.add(project_id)
        self._wake.set()
