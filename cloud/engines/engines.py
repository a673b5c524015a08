"""The engines of one cloud process: embedded ones where no URL is given, others as they are."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Protocol

from cloud.engines.engine import EmbeddedEngine
from cloud.engines.nats_server import NatsServer
from cloud.engines.postgres import Postgres
from cloud.engines.program import Program
from cloud.engines.reach import ping_nats, ping_postgresql, reach
from cloud.engines.settings import NATS, POSTGRESQL, EngineSettings, Progress
from tidegate.console import UserError


class Engine(Protocol):
    @property
    def url(self) -> str: ...

    async def start(self) -> None: ...

    async def supervise(self) -> None: ...

    async def stop(self) -> None: ...


class ExternalEngine:
    """Somebody else's, who starts, supervises and stops it: we only wait until it is there."""

    def __init__(
        self, name: str, url: str, ping: Callable[[str], Awaitable[None]], within_s: float, progress: Progress
    ) -> None:
        self.url = url
        self._name = name
        self._ping = ping
        self._within_s = within_s
        self._progress = progress

    async def start(self) -> None:
        await reach(self._name, self.url, self._ping, self._within_s, self._progress)

    async def supervise(self) -> None:
        return

    async def stop(self) -> None:
        return


class Engines:
    """Within `async with`, the engines are ready, and `database_url` and `nats_url` hold for the whole time.

    Entering raises UserError with what to do about it. Several processes may use one data directory at a time: one of
    them owns the embedded engines, and when it ends or is killed another one goes on, without a restart; the last one
    stops them.
    """

    def __init__(
        self, settings: EngineSettings, progress: Progress, *, names: Sequence[str] = (POSTGRESQL, NATS)
    ) -> None:
        """`names`: of those that are needed. What only asks the database must not wait for a NATS that hangs."""
        self._settings = settings
        self._progress = progress
        self._engines = {name: self._engine(name) for name in names}

    @property
    def database_url(self) -> str:
        return self._engines[POSTGRESQL].url

    @property
    def nats_url(self) -> str:
        return self._engines[NATS].url

    async def supervise(self, stop: asyncio.Event) -> None:
        """Runs until `stop`, as a task within `async with`: brings back an engine that died, at the same place and with
        its data, and takes over from an owner that is gone."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(engine.supervise()) for engine in self._engines.values()]
            await stop.wait()
            for task in tasks:
                task.cancel()

    async def __aenter__(self) -> Engines:
        try:
            async with asyncio.TaskGroup() as group:
                for engine in self._engines.values():
                    group.create_task(engine.start())
        except BaseExceptionGroup as errors:
            await self._stop()
            raise _first(errors) from None
        except BaseException:  # cancelled, by Ctrl-C: what has been started is to end all the same
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def _stop(self) -> None:
        async with asyncio.TaskGroup() as group:
            for engine in self._engines.values():
                group.create_task(engine.stop())

    def _engine(self, name: str) -> Engine:
        settings = self._settings
        url = settings.database_url if name == POSTGRESQL else settings.nats_url
        if url:
            ping = ping_postgresql if name == POSTGRESQL else ping_nats
            return ExternalEngine(name, url, ping, settings.reach_within_s, self._progress)
        if sys.platform != "linux":
            raise UserError(
                f"the embedded {name} needs Linux",
                "set database.url and nats.url to engines of your own",
            )
        data_dir = settings.data_dir.resolve()
        program: Program
        if name == POSTGRESQL:
            program, port = Postgres(), settings.postgres_port
        else:
            program, port = NatsServer(settings.jetstream_bytes_max), settings.nats_port
        return EmbeddedEngine(program, data_dir / name, data_dir / "logs" / f"{name}.log", port, self._progress)


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """What people should read first: an error with a remedy, if there is one."""
    known = errors.subgroup(UserError)
    error: BaseException = known if known is not None else errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return UserError(f"the embedded engines cannot be started: {where}{error.strerror}", "choose another data_dir")
    return error
