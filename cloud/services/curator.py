"""The curator: lets go of what nobody wants kept any longer, and says what that was.

Once a day, and when somebody asks. One process at a time does it, on one session (cloud/db/curator.py), in steps of a
bounded number of rows with pauses as long as the steps, so that writers always find half of the disk theirs. A run that
is cut off goes on with the next one, in the same reports.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import msgspec

from cloud.db import curator, curator_reports, retention
from cloud.db.curator import BusyError
from cloud.db.database import Connection, Database, DatabaseError
from cloud.model.curation import Report
from cloud.services.curator_run import CuratorRun, StoppedError, give_way
from cloud.services.rollups import turn
from tidegate.logs import get_logger
from tidegate.pause import pause

LOOK_EVERY_S: Final = 2.0
"""How long a wish is not seen at most."""
ROLLUPS_EVERY_S: Final = 60.0
"""How long a day that changed late is read from its rows at most, while there is time."""
END_WITHIN_S: Final = 5.0
"""A step takes a tenth of a second, but for counting or cleaning a large week, of which nothing is lost."""

_log = get_logger("curator")


class CuratorCounts(msgspec.Struct):
    runs: int = 0
    rows: int = 0
    lock_waits: int = 0


class Curator:
    def __init__(self, database: Database, wall_ms: Callable[[], int], every_s: float) -> None:
        """`every_s`: between the end of a run by schedule and the next one."""
        self._database = database
        self._wall_ms = wall_ms
        self._every_s = every_s
        self._rollups_due_s = 0.0
        self.counts = CuratorCounts()

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await self._until(stop)
            except DatabaseError as error:
                _log.warning("the curator goes on later", reason=str(error), again_in_s=LOOK_EVERY_S)
            except Exception as error:  # noqa: BLE001  # whatever is wrong with one table, the cloud's other parts go on
                _log.error("the curator failed", again_in_s=LOOK_EVERY_S, exc_info=error)
            await pause(stop, LOOK_EVERY_S)

    async def _until(self, stop: asyncio.Event) -> None:
        """A step; one that a long statement keeps from ending is cut off."""
        stopped = asyncio.ensure_future(stop.wait())
        work = asyncio.ensure_future(self.step(stop))
        try:
            await asyncio.wait((work, stopped), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                await asyncio.wait((work,), timeout=END_WITHIN_S)
            if work.done():
                work.result()
        finally:
            stopped.cancel()
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def step(self, stop: asyncio.Event) -> None:
        """What is due: wishes, and the run by schedule. Raises DatabaseError."""
        async with self._database.connection() as conn:
            wishes = await curator_reports.unfinished(conn)
            since_s = await curator_reports.since_schedule_s(conn)
        is_due = since_s is None or since_s >= self._every_s
        if is_due or wishes:
            await self.curate(stop, is_scheduled=is_due)
        if (now_s := asyncio.get_running_loop().time()) >= self._rollups_due_s:
            has_more = await self.roll_up(stop)
            self._rollups_due_s = now_s + (0 if has_more else ROLLUPS_EVERY_S)

    async def roll_up(self, stop: asyncio.Event) -> bool:
        """A turn at summing up days that have ended or changed; whether there is more. Raises DatabaseError."""
        async with self._database.session() as conn:
            if not await curator.take(conn):
                return False
            try:
                return await turn(conn, self._wall_ms(), partial(give_way, stop))
            except (StoppedError, BusyError):
                return False

    async def curate(
        self, stop: asyncio.Event, *, is_scheduled: bool = False, dry_for: Sequence[str] = ()
    ) -> list[Report] | None:
        """Does what is asked for and, `is_scheduled`, what is due; the reports that ended. None: another process is at
        it. `dry_for`: projects that want to know what would go. Raises DatabaseError."""
        async with self._database.session() as conn:
            if not await curator.take(conn):
                return None
            for project_id in dry_for:
                await curator_reports.ask(conn, project_id, dry_run=True)
            done: list[Report] = []
            wishes = await curator_reports.unfinished(conn)
            for wish in wishes:
                if wish.dry_run:
                    done += await self._one(conn, stop, wish.project_id, [wish.project_id])
            real = [wish.project_id for wish in wishes if not wish.dry_run]
            if real or is_scheduled:
                done += await self._one(conn, stop, None, real)
            if is_scheduled and not stop.is_set():
                await curator_reports.end_schedule(conn)
            return done

    async def _one(
        self, conn: Connection, stop: asyncio.Event, dry_for: str | None, wanted: Sequence[str]
    ) -> list[Report]:
        run = CuratorRun(conn, stop, await retention.every(conn), self._wall_ms(), dry_for)
        for project_id in wanted:
            await run.report(project_id)
        problem = ""
        try:
            await run.everything()
        except StoppedError:
            problem = "the process was ended; the next run goes on"
        ended = await run.end(problem)
        self.counts.runs += 1
        self.counts.rows += run.rows
        self.counts.lock_waits += run.lock_waits
        for report in ended:
            rows = sum(line.rows for line in report.lines)
            if rows and not report.dry_run:
                _log.info("let go by retention", project=report.project_id, report=report.number, rows=rows)
        return ended
