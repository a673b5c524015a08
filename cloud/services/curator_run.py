"""One run of the curator over all that is kept for so long.

A week of history that nobody keeps any of is dropped; what others keep some of is deleted by device and time, and
dropped once it is empty. Not the curator's: message keys, because a device may send again whatever it sent (once is
once, without a limit of time); tombstones, which go by number with each deletion.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Final, TypeVar

import msgspec

from cloud.db import curator, curator_reports, rollups
from cloud.db.curator import BusyError, Operation, Partition
from cloud.db.database import Connection
from cloud.model.curation import Action, Line, Report, Size, added
from cloud.model.retention import DAY_MS, KEPT, Kind, Retention, Window, may_drop, windows
from cloud.services.rollups import keep
from tidegate.logs import get_logger
from tidegate.pause import pause

T = TypeVar("T")

DEVICES_MAX: Final = 500
"""Looked at together."""
ROWS_MAX: Final = 5000
"""Of one step: some 50 ms, after which others have their turn."""
PAUSE_MIN_S: Final = 0.005
CLEAN_ROWS_MIN: Final = 1000
"""So many deleted rows of a partition are worth a VACUUM now; fewer wait for PostgreSQL's own."""
CLEAN_STRIPPED_MIN: Final = 10_000
CLEAN_SHARE: Final = 0.15
"""So much of a partition is stripped between two of them: it grows by as much, and not to twice its size."""
TIME_MIN_MS: Final = -(2**62)
TIME_MAX_MS: Final = 2**62
ORPHANS: Final = "current values of devices that exist no more"

_log = get_logger("curator")


class StoppedError(Exception):
    """Close: the process ends."""


class CuratorRun:
    """One run. `dry_for`: the project that wants to know what would go; None: it goes, of all projects."""

    def __init__(
        self, conn: Connection, stop: asyncio.Event, rules: Mapping[str, Retention], now_ms: int, dry_for: str | None
    ) -> None:
        self._conn = conn
        self._stop = stop
        self._rules = rules
        self._now_ms = now_ms
        self._dry_for = dry_for
        self._is_dry = dry_for is not None
        self._reports: dict[str, Report] = {}
        self._new: dict[str, list[Line]] = {}
        self._sizes: dict[str, Size] = {}
        self._problems: list[str] = []
        self._stripped: dict[str, int] = {}
        """Messages of each table since it was cleaned."""
        self.rows = 0
        self.lock_waits = 0

    async def everything(self) -> None:
        if not self._is_dry:
            for partition in await curator.detached(self._conn):
                await self._table(self._let_go(partition, is_attached=False), partition.name)
        newest_ms = max(self._ends(), default=None)
        if newest_ms is not None:
            for partition in await curator.partitions(self._conn):
                if partition.from_ms is None or partition.from_ms < newest_ms:
                    await self._table(self._partition(partition), partition.name)
        for table in curator.OLD:
            for project_id, rules in self._mine():
                await self._table(self._old(table, project_id, rules), table)
        await self._table(self._rollups(), "rollup")
        await self._table(self._orphans(), "current_value")

    async def report(self, project_id: str) -> Report:
        """The project's own, begun or gone on with."""
        if project_id not in self._reports:
            self._reports[project_id] = await curator_reports.begin(self._conn, project_id, dry_run=self._is_dry)
        return self._reports[project_id]

    async def end(self, problem: str) -> list[Report]:
        """All reports as they are now. A run that stopped is not the end of them."""
        problem = "; ".join(filter(None, (*self._problems, problem)))
        await self._save()
        ended = []
        for report in self._reports.values():
            told = msgspec.structs.replace(report, problem=problem, lock_waits=report.lock_waits + self.lock_waits)
            ended.append(await curator_reports.save(self._conn, told, is_finished=not self._stop.is_set()))
        return ended

    # ---- history ----

    async def _partition(self, partition: Partition) -> None:
        kinds: set[Kind] = set()
        after = TIME_MIN_MS
        while True:
            found = await curator.devices(self._conn, partition.name, after, DEVICES_MAX)
            kinds.update(kind for _, kind in found)
            if not self._may_drop(partition, kinds) or len(found) < DEVICES_MAX:
                break
            after = found[-1][0]
            await self._pause(0)
        if self._may_drop(partition, kinds):
            await self._let_go(partition, is_attached=True)
            return
        before = await curator.size(self._conn, partition.name)
        touched = 0
        after = TIME_MIN_MS
        while found := await curator.devices(self._conn, partition.name, after, DEVICES_MAX):
            members: dict[Kind, list[int]] = {}
            for device_id, kind in found:
                members.setdefault(kind, []).append(device_id)
            for kind, ids in members.items():
                touched += await self._sweep(partition, kind, ids)
            await self._save()
            after = found[-1][0]
            await self._pause(0)
        if not touched or self._is_dry:
            return
        if touched >= CLEAN_ROWS_MIN:
            await self._patiently(lambda: curator.clean(self._conn, partition.name))
        self._sizes[partition.name] = Size(partition.name, before, await curator.size(self._conn, partition.name))
        is_over = partition.until_ms is not None and partition.until_ms <= self._now_ms
        if is_over and await curator.is_empty(self._conn, partition.name):
            await self._let_go(partition, is_attached=True)
        await self._save()

    def _may_drop(self, partition: Partition, kinds: Iterable[Kind]) -> bool:
        end_ms = _or(partition.until_ms, TIME_MAX_MS)
        return end_ms <= self._now_ms and may_drop(self._rules, kinds, end_ms, self._now_ms)

    async def _let_go(self, partition: Partition, *, is_attached: bool) -> None:
        """Drops it, and puts back what came into it meanwhile and is to be kept."""
        name = partition.name
        if self._is_dry:
            for kind, (rows, row_bytes) in (await curator.held(self._conn, name)).items():
                if kind[0] == self._dry_for:
                    await self._line(kind[0], Line(name, self._rule(kind), "dropped", rows, rows, rows, row_bytes))
            await self._save()
            return
        if is_attached:
            await self._keep_week(partition)
            await self._patiently(lambda: curator.detach(self._conn, name))
        held = await curator.held(self._conn, name)
        end_ms = _or(partition.until_ms, TIME_MAX_MS)
        kept = [kind for kind in held if not may_drop(self._rules, [kind], end_ms, self._now_ms)]
        before = await curator.size(self._conn, name)
        for kind in held.keys() - set(kept):
            await self.report(kind[0])

        await self._forget(partition, kept)

        async def drop() -> None:
            async with self._conn.transaction():
                if kept:
                    await curator.put_back(self._conn, name, kept)
                await curator.drop(self._conn, name)

        await self._patiently(drop)
        self._sizes[name] = Size(name, self._sizes[name].bytes_before if name in self._sizes else before, 0)
        for kind, (rows, row_bytes) in held.items():
            if kind not in kept:
                await self._line(kind[0], Line(name, self._rule(kind), "dropped", rows, rows, 0, row_bytes))
        await self._save()

    async def _keep_week(self, partition: Partition) -> None:
        after = TIME_MIN_MS
        while found := await curator.devices(self._conn, partition.name, after, DEVICES_MAX):
            for project_id in {kind[0] for _, kind in found}:
                ids = [device_id for device_id, kind in found if kind[0] == project_id]
                await self._keep(project_id, ids, _or(partition.from_ms, 0), _or(partition.until_ms, 0))
            after = found[-1][0]

    async def _keep(self, project_id: str, ids: Sequence[int], from_ms: int, until_ms: int) -> None:
        """The rollups of what is about to go, where they may stay."""
        days = self._rules.get(project_id, KEPT).rollup_days
        if days is not None:
            first, end = max(from_ms // DAY_MS, self._now_ms // DAY_MS - days), -(-until_ms // DAY_MS)
            if first < end:
                await keep(self._conn, ids, first, end, self._pause)

    async def _forget(self, partition: Partition, kept: Sequence[Kind]) -> None:
        """The rollups of a detached week."""
        first, end = (_or(time_ms, 0) // DAY_MS for time_ms in (partition.from_ms, partition.until_ms))
        after = TIME_MIN_MS
        while found := await curator.devices(self._conn, partition.name, after, DEVICES_MAX):
            ids = [device_id for device_id, kind in found if kind not in kept]
            await self._patiently(partial(rollups.forget, self._conn, ids, first, end))
            after = found[-1][0]

    async def _sweep(self, partition: Partition, kind: Kind, ids: Sequence[int]) -> int:
        """Of devices of one kind; how many messages."""
        if self._dry_for not in (None, kind[0]):
            return 0
        touched = 0
        for window in windows(self._rules.get(kind[0], KEPT), kind[1], self._now_ms):
            from_ms, until_ms = (
                max(_or(window.from_ms, TIME_MIN_MS), _or(partition.from_ms, TIME_MIN_MS)),
                min(window.until_ms, _or(partition.until_ms, TIME_MAX_MS)),
            )
            if from_ms < until_ms:
                for operation in curator.operations(window):
                    touched += await self._operate(partition.name, kind[0], window, ids, from_ms, until_ms, operation)
        return touched

    async def _operate(
        self,
        table: str,
        project_id: str,
        window: Window,
        ids: Sequence[int],
        from_ms: int,
        until_ms: int,
        operation: Operation,
    ) -> int:
        action: Action = "stripped" if operation.is_strip else "deleted"
        concerned = await curator.concerned(self._conn, table, ids, from_ms, until_ms, operation)
        before = sum(concerned.values())
        if not before:
            return 0
        if self._is_dry:
            size = await curator.bytes_of(self._conn, table, list(concerned), from_ms, until_ms, operation)
            await self._line(project_id, Line(table, window.rule, action, before, before, before, size))
            return before
        await self._keep(project_id, list(concerned), from_ms, until_ms)
        rows = row_bytes = 0
        for some in _shared(concerned):
            start_ms: int | None = from_ms
            while start_ms is not None:
                first, last = start_ms, until_ms
                start_ms = None
                if concerned[some[0]] > ROWS_MAX:  # alone: in parts of its time
                    end = await curator.time_after(self._conn, table, some[0], first, ROWS_MAX)
                    if end is not None and end < until_ms:
                        start_ms = last = max(end, first + 1)
                done, size = await self._patiently(partial(self._carry_out, table, some, first, last, operation))
                rows, row_bytes = rows + done, row_bytes + size
                await self._clean(table, done if operation.is_strip else 0)
        after = sum((await curator.concerned(self._conn, table, ids, from_ms, until_ms, operation)).values())
        await self._line(project_id, Line(table, window.rule, action, before, rows, after, row_bytes))
        return rows

    async def _clean(self, table: str, stripped: int) -> None:
        """While messages are stripped, so that their next ones find the room of those before."""
        self._stripped[table] = self._stripped.get(table, 0) + stripped
        if self._stripped[table] < CLEAN_STRIPPED_MIN:
            return
        if self._stripped[table] >= CLEAN_SHARE * await curator.about_rows(self._conn, table):
            await self._patiently(lambda: curator.clean(self._conn, table))
            self._stripped[table] = 0

    async def _carry_out(
        self, table: str, ids: Sequence[int], from_ms: int, until_ms: int, operation: Operation
    ) -> tuple[int, int]:
        async with self._conn.transaction():
            await rollups.mark_range(self._conn, ids, from_ms, until_ms)
            return await curator.carry_out(self._conn, table, ids, from_ms, until_ms, operation)

    # ---- what goes by when it came ----

    async def _old(self, table: str, project_id: str, rules: Retention) -> None:
        rule = curator.OLD[table][0]
        days: int | None = getattr(rules, rule)
        if days is None:
            return
        rows = row_bytes = 0
        position: int | None = 0
        while position is not None:
            done, size, position = await self._patiently(
                partial(curator.old, self._conn, table, project_id, days, position, ROWS_MAX, is_dry=self._is_dry)
            )
            rows, row_bytes = rows + done, row_bytes + size
        if rows:
            await self._deleted(project_id, table, f"{rule} = {days}", rows, row_bytes)
            await self._save()

    async def _rollups(self) -> None:
        """Of days whose messages are gone."""
        for project_id in await rollups.kept_by(self._conn):
            if self._dry_for not in (None, project_id):
                continue
            days = self._rules.get(project_id, KEPT).rollup_days
            end_day = self._now_ms // DAY_MS - (days or 0)
            rows = row_bytes = 0
            more = 1
            while more:
                more, done, size = await self._patiently(partial(self._expired, project_id, end_day))
                rows, row_bytes = rows + done, row_bytes + size
            if rows:
                rule = "no rollup_days" if days is None else f"rollup_days = {days}"
                await self._deleted(project_id, "rollup", rule, rows, row_bytes)
                await self._save()

    async def _expired(self, project_id: str, end_day: int) -> tuple[int, int, int]:
        return await rollups.expired(self._conn, project_id, end_day, DEVICES_MAX, is_dry=self._is_dry)

    async def _orphans(self) -> None:
        position: int | None = TIME_MIN_MS
        while position is not None:
            gone, position = await curator.orphans(self._conn, position, DEVICES_MAX)
            if not gone:
                continue
            found = await self._patiently(partial(curator.forget_current, self._conn, gone, is_dry=self._is_dry))
            for project_id, (rows, row_bytes) in found.items():
                if self._dry_for in (None, project_id):
                    await self._deleted(project_id, "current_value", ORPHANS, rows, row_bytes)
        await self._save()

    # ---- all of them ----

    def _mine(self) -> list[tuple[str, Retention]]:
        return [(name, rules) for name, rules in self._rules.items() if self._dry_for in (None, name)]

    def _ends(self) -> list[int]:
        """Up to when each kind of device has something to lose."""
        return [
            window.until_ms
            for _, rules in self._mine()
            for blueprint_id in (None, "", *rules.blueprints)
            for window in windows(rules, blueprint_id, self._now_ms)
        ]

    def _rule(self, kind: Kind) -> str:
        found = windows(self._rules.get(kind[0], KEPT), kind[1], self._now_ms)
        return found[0].rule if found else ""

    async def _table(self, work: Awaitable[None], name: str) -> None:
        """Does it; what is busy all along waits for the next run."""
        try:
            await work
        except BusyError as error:
            self._problems.append(f"{name}: {error}")
            _log.warning("a table is busy", table=name, reason=str(error))

    async def _patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        """A step, and the pause after it."""
        started = asyncio.get_running_loop().time()

        def waited() -> None:
            self.lock_waits += 1
            if self._stop.is_set():
                raise StoppedError

        found = await curator.patiently(work, waited)
        await self._pause(asyncio.get_running_loop().time() - started)
        return found

    async def _pause(self, worked_s: float) -> None:
        await give_way(self._stop, worked_s)

    async def _deleted(self, project_id: str, table: str, rule: str, rows: int, row_bytes: int) -> None:
        """All that the rule is about is gone, or would be."""
        left = rows if self._is_dry else 0
        await self._line(project_id, Line(table, rule, "deleted", rows, rows, left, row_bytes))

    async def _line(self, project_id: str, line: Line) -> None:
        await self.report(project_id)
        self._new.setdefault(project_id, []).append(line)
        if not self._is_dry:
            self.rows += line.rows

    async def _save(self) -> None:
        """What is new since, so that little of it is lost with the process."""
        for project_id, report in self._reports.items():
            lines = (*report.lines, *self._new.get(project_id, ()))
            sizes = {size.table: size for size in report.sizes}
            for table in {line.table for line in lines} & self._sizes.keys():
                size = self._sizes[table]
                before = sizes[table].bytes_before if table in sizes else size.bytes_before
                sizes[table] = msgspec.structs.replace(size, bytes_before=before)
            told = msgspec.structs.replace(
                report, lines=added(lines), sizes=tuple(sizes[name] for name in sorted(sizes))
            )
            if told != report:
                self._reports[project_id] = await curator_reports.save(self._conn, told, is_finished=False)
        self._new = {}


async def give_way(stop: asyncio.Event, worked_s: float) -> None:
    """As long as the work before it. Raises StoppedError."""
    if stop.is_set():
        raise StoppedError
    await pause(stop, max(PAUSE_MIN_S, worked_s))


def _shared(concerned: Mapping[int, int]) -> list[list[int]]:
    """Devices that one step does together; alone what is too much for one."""
    found: list[list[int]] = []
    room = 0
    for device_id, rows in concerned.items():
        if not found or rows > room:
            found.append([])
            room = ROWS_MAX
        found[-1].append(device_id)
        room -= rows
    return found


def _or(value: int | None, other: int) -> int:
    return other if value is None else value
