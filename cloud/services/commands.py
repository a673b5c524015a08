"""Commands on their way to gateways: each goes on the link of the gateway that saw its device last, again on each new
connection until the gateway says that it has it; and what gateways say of them is kept before it is answered.

Any number of processes may do this: the connection that was opened last speaks for its gateway, as the database says,
and PostgreSQL's NOTIFY tells the process that holds it of a new command. Looking every few seconds finds what a lost
notification missed.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final

from cloud.db import commands
from cloud.db.commands import Report
from cloud.db.database import Connection, Database, DatabaseError
from protocols.messages import Command
from sync.link.frames import CommandKept, CommandProgress
from tidegate.logs import get_logger

POLL_S: Final = 5.0
"""How long a command waits at most if its notification is lost."""
SWEEP_S: Final = 1.0
"""How exactly deadlines are kept."""
RETRY_S: Final = 2.0
"""Between attempts to reach the database."""
REPORTS_MAX: Final = 4096
"""Of one gateway that are not written yet; it tells again what is not answered."""

_log = get_logger("commands")


class Commands:
    """Wakes the gateways of this process, ends commands in time, and finds gateways for those without one."""

    def __init__(self, database: Database, wall_ms: Callable[[], int]) -> None:
        """`wall_ms`: the cloud's clock, Unix milliseconds; deadlines go by it."""
        self._database = database
        self._wall_ms = wall_ms
        self._open: dict[str, set[GatewayCommands]] = {}
        self._heeded: dict[str, set[Callable[[], None]]] = {}

    @contextlib.asynccontextmanager
    async def of_gateway(self, project_id: str, gateway_id: str) -> AsyncIterator[GatewayCommands]:
        """For a connection of the gateway, while it stands: from now on it speaks for the gateway. Raises
        DatabaseError."""
        feed = GatewayCommands(self._database, project_id, gateway_id, self._wall_ms)
        async with self._database.transaction() as conn:
            await commands.begin_session(conn, project_id, gateway_id, feed.session)
        name = f"{project_id}/{gateway_id}"
        self._open.setdefault(name, set()).add(feed)
        try:
            yield feed
        finally:
            self._open[name].discard(feed)
            if not self._open[name]:
                del self._open[name]
            try:
                async with self._database.transaction() as conn:
                    await commands.end_session(conn, project_id, gateway_id, feed.session)
            except DatabaseError as error:
                _log.warning("end of a gateway's session not noted", gateway=gateway_id, reason=str(error))

    @contextlib.contextmanager
    def heeding(self, project_id: str, gateway_id: str, wake: Callable[[], None]) -> Iterator[None]:
        """Within the block, `wake` is called at each notification for the gateway, whatever it is about."""
        name = f"{project_id}/{gateway_id}"
        self._heeded.setdefault(name, set()).add(wake)
        try:
            yield
        finally:
            self._heeded[name].discard(wake)
            if not self._heeded[name]:
                del self._heeded[name]

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`; waits out a database that is away."""
        tasks = [asyncio.ensure_future(work) for work in (stop.wait(), self._listen(), self._sweep())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def sweep(self) -> None:
        """Ends what is past its deadline, and finds gateways. Raises DatabaseError."""
        now_ms = self._wall_ms()
        await self._database.run(lambda conn: commands.expire(conn, now_ms))
        await self._database.run(lambda conn: commands.find_gateways(conn, now_ms))

    async def _sweep(self) -> None:
        away = False
        while True:
            try:
                await self.sweep()
                away = False
            except DatabaseError as error:
                if not away:
                    _log.warning("deadlines not looked after", reason=str(error))
                away = True
            await asyncio.sleep(SWEEP_S)

    async def _listen(self) -> None:
        while True:
            with contextlib.suppress(DatabaseError):  # the sweep says it
                async with self._database.session() as conn:
                    lost = asyncio.Event()
                    conn.add_termination_listener(lambda _, lost=lost: lost.set())
                    await conn.add_listener(commands.CHANNEL, self._notified)
                    while not lost.is_set():
                        self._wake_all()
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout(POLL_S):
                                await lost.wait()
            await asyncio.sleep(RETRY_S)

    def _notified(self, _conn: object, _pid: int, _channel: str, name: object) -> None:
        for feed in self._open.get(str(name), ()):
            feed.wake()
        for wake in self._heeded.get(str(name), ()):
            wake()

    def _wake_all(self) -> None:
        for feeds in self._open.values():
            for feed in feeds:
                feed.wake()


class GatewayCommands:
    """The link's CommandFeed, of one connection."""

    def __init__(self, database: Database, project_id: str, gateway_id: str, wall_ms: Callable[[], int]) -> None:
        self.session = uuid.uuid4()
        self._database = database
        self._project_id = project_id
        self._gateway_id = gateway_id
        self._wall_ms = wall_ms
        self._reports: deque[CommandProgress] = deque()
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """There may be a command."""
        self._changed.set()

    async def commands(self) -> AsyncIterator[Command | CommandKept]:
        while True:
            self._changed.clear()
            try:
                while self._reports:
                    for kept in await self._keep():
                        yield kept
                while taken := await self._take():
                    for command in taken:
                        _log.info("command to gateway", id=command.id, name=command.name, gateway=self._gateway_id)
                        yield command
            except DatabaseError as error:
                _log.warning("commands wait for the database", gateway=self._gateway_id, reason=str(error))
                await asyncio.sleep(RETRY_S)
                continue
            await self._changed.wait()

    async def progress(self, progress: CommandProgress) -> None:
        if len(self._reports) < REPORTS_MAX:
            self._reports.append(progress)
            self._changed.set()

    async def _take(self) -> list[Command]:
        now_ms = self._wall_ms()

        async def take(conn: Connection) -> list[Command]:
            return await commands.take(conn, self._project_id, self._gateway_id, self.session, now_ms)

        return await self._database.run(take)

    async def _keep(self) -> list[CommandKept]:
        told = list(self._reports)
        reports = [Report(one.command_id, one.state, one.text, one.at_ms) for one in told]

        async def keep(conn: Connection) -> None:
            await commands.report(conn, self._project_id, self._gateway_id, reports)

        await self._database.run(keep)
        for one in told:
            self._reports.popleft()
            _log.info("command", id=one.command_id, state=one.state.value, reason=one.text, gateway=self._gateway_id)
        return [CommandKept(one.command_id, one.state) for one in told]
