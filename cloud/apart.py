"""Backfill in a process of its own, at a lower priority: live messages wait neither for its Python nor for the cores.

    cloud process ── stdin: a line of JSON (_Request), then open as long as it lives ──▶ this one
                  ◀── stdout: a line of JSON a second: counts by service ──

It works on the backfill lane of the pipeline's topics and on nothing else. It ends when its stdin does, as it then has
nobody to work for; killed at any instant it leaves what any killed worker leaves, which the next one goes on with.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import Final

import msgspec
import uvloop

from cloud.db.database import Database, DatabaseError
from cloud.db.postgres_store import PostgresStore
from cloud.registry_feed import RegistryFeed
from cloud.services.catalog import pipeline_service
from cloud.services.runner import ServiceCounts, ServiceRunner
from cloud.topics import TOPICS
from protocols.messages import Lane
from sync.bus.contract import BusError
from sync.bus.jetstream import JetStreamBus
from tidegate import logs
from tidegate.logs import get_logger
from tidegate.pause import pause

NICENESS: Final = 15
"""Live traffic that wants a whole core gets nearly all of it, this a few thousand messages a second; and idle cores are
all its own. The processes of an embedded PostgreSQL that work for it are as nice."""
CONNECTIONS_MAX: Final = 4
"""To the database: a transaction for each of two services, and the sweep of their outputs."""
TELL_EVERY_S: Final = 1.0
AGAIN_FIRST_S: Final = 0.5
AGAIN_MAX_S: Final = 10.0
"""Between the starts of one that ended by itself: what is in its way (an engine that recovers) passes."""
STOP_S_MAX: Final = 15.0
"""To finish what it has fetched; what it holds after that comes again to the next one."""
LINE_BYTES_MAX: Final = 64 * 1024
"""Of its counts, a hundredth of which is used."""

_log = get_logger("apart")


class Apart:
    """The process's owner: starts it, starts it again, and ends it."""

    def __init__(
        self, database_url: str, nats_url: str, services: Sequence[str], log_level: str, *, database_here: bool
    ) -> None:
        """`database_here`: it is an embedded one, whose processes are on this machine."""
        request = _Request(database_url, nats_url, tuple(services), log_level, NICENESS if database_here else 0)
        self._request = msgspec.json.encode(request) + b"\n"
        self._services = services
        self._told = dict.fromkeys(services, ServiceCounts())
        self._ended = dict.fromkeys(services, ServiceCounts())

    def counts(self, service: str) -> ServiceCounts:
        """Of all that ran since this process started."""
        told, ended = self._told[service], self._ended[service]
        return ServiceCounts(*(getattr(told, name) + getattr(ended, name) for name in ServiceCounts.__struct_fields__))

    async def run(self, stop: asyncio.Event) -> None:
        again_s = AGAIN_FIRST_S
        while not stop.is_set():
            began_s = asyncio.get_running_loop().time()
            code = await self._run_once(stop)
            if stop.is_set():
                return
            if asyncio.get_running_loop().time() - began_s > AGAIN_MAX_S:
                again_s = AGAIN_FIRST_S
            _log.error("the backfill process ended", exit_code=code, again_in_s=again_s)
            await pause(stop, again_s)
            again_s = min(again_s * 2, AGAIN_MAX_S)

    async def _run_once(self, stop: asyncio.Event) -> int:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            __name__,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LINE_BYTES_MAX,
        )
        if process.stdin is None or process.stdout is None:
            raise AssertionError("both were asked for")
        stopped = asyncio.ensure_future(stop.wait())
        listening = asyncio.ensure_future(self._listen(process.stdout))
        try:
            with contextlib.suppress(ConnectionError, RuntimeError):  # it is dead already; uvloop's word is the latter
                process.stdin.write(self._request)
            await asyncio.wait((stopped, listening), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            process.stdin.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), STOP_S_MAX)
            if process.returncode is None:
                process.kill()
            await process.wait()
            await asyncio.gather(listening, return_exceptions=True)
            self._ended = {name: self.counts(name) for name in self._services}
            self._told = dict.fromkeys(self._services, ServiceCounts())
        return process.returncode or 0

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        decoder = msgspec.json.Decoder(dict[str, ServiceCounts])
        while line := await reader.readline():
            self._told = decoder.decode(line)


class _Request(msgspec.Struct, frozen=True):
    database_url: str
    nats_url: str
    services: tuple[str, ...]
    log_level: str
    database_niceness: int


async def _work(request: _Request) -> None:
    stop = asyncio.Event()
    # Reading starts at once: an owner that is killed while this one starts is noticed all the same.
    watching = asyncio.create_task(_until_stdin_ends(stop))
    async with contextlib.AsyncExitStack() as stack:
        database = await Database.connect(
            request.database_url, connections_max=CONNECTIONS_MAX, niceness=request.database_niceness
        )
        stack.push_async_callback(database.close)
        bus = await JetStreamBus.connect(request.nats_url, TOPICS)
        stack.push_async_callback(bus.close)
        feed = await RegistryFeed.open(database)
        stack.push_async_callback(feed.close)
        store = PostgresStore(database)
        runners = [
            ServiceRunner(pipeline_service(name, feed), bus, store, lanes=(Lane.BACKFILL,)) for name in request.services
        ]
        async with asyncio.TaskGroup() as group:
            group.create_task(feed.run(stop))
            for runner in runners:
                group.create_task(runner.run(stop))
            telling = group.create_task(_tell(runners))
            await watching
            telling.cancel()


async def _until_stdin_ends(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=LINE_BYTES_MAX)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.read(LINE_BYTES_MAX):
        pass
    stop.set()


async def _tell(runners: Sequence[ServiceRunner]) -> None:
    while True:
        line = msgspec.json.encode({runner.name: runner.counts for runner in runners}) + b"\n"
        with contextlib.suppress(OSError):  # the owner is gone, which stdin says too
            os.write(sys.stdout.fileno(), line)
        await asyncio.sleep(TELL_EVERY_S)


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the owner, which ends this one in order
    line = bytearray()
    while not line.endswith(b"\n"):  # byte by byte: what follows belongs to the loop
        byte = os.read(sys.stdin.fileno(), 1)
        if not byte:
            return 0
        line += byte
    request = msgspec.json.decode(bytes(line), type=_Request)
    logs.configure(level=request.log_level)
    os.nice(NICENESS)
    try:
        uvloop.run(_work(request))
    except (DatabaseError, BusError) as error:
        _log.warning("the backfill process cannot work", reason=str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
