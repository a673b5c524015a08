"""Housekeeping of the directory: prepares segments ahead, remembers what is accepted, removes what is done with, and
evicts where there is no room."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from protocols.messages import GapKind, Priority
from sync.log.catalog import Catalog
from sync.log.disk import Disk
from sync.log.errors import LogFailedError, LogFullError
from sync.log.eviction import limit_losses, victim
from sync.log.rewrite import Survey, survey, write
from sync.log.segment import RESERVE_NAME, Ended, Segment, segment_name
from sync.log.settings import CUT_FROM_BYTES, STATE_BYTES, STATE_INTERVAL_S, LogSettings
from sync.log.state import encode_state
from sync.log.state_files import StateFiles
from sync.log.threads import DiskThread, start_task
from sync.ranges import Ranges
from tidegate.logs import get_logger

_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})

logger = get_logger("sync.log")


class Keeper:
    """Runs as one task. Its disk work is done in a thread of its own, so that no group commit waits for it."""

    def __init__(
        self,
        disk: Disk,
        directory: Path,
        settings: LogSettings,
        catalog: Catalog,
        *,
        next_ordinal: int,
        generation: int,
        foreign_bytes: int,
        wall_ms: Callable[[], int],
        on_removed: Callable[[Sequence[Segment]], None],
        on_rewritten: Callable[[Segment], None],
    ) -> None:
        self.spares: list[int] = []
        """Ordinals of prepared segments, ready for the writer."""
        self._disk = disk
        self._directory = directory
        self._settings = settings
        self._catalog = catalog
        self._next_ordinal = next_ordinal
        self._generation = generation
        self._foreign_bytes = foreign_bytes
        self._wall_ms = wall_ms
        self._on_removed = on_removed
        self._on_rewritten = on_rewritten
        self._thread = DiskThread("log-keeper")
        self._working = asyncio.Lock()
        self._has_reserve = False
        """One more file, for a segment to be rewritten into when there is no room to make one."""
        self._in_hand_bytes = 0
        """Of a segment that is being prepared or rewritten."""
        self._spoiled: list[int] = []
        self._to_cut: list[Segment] = []
        self._state = StateFiles(disk, directory)
        self._written_changes = -1
        self._written_active: Ended | None = None
        self._write_after_s = 0.0
        self._reminder: asyncio.TimerHandle | None = None
        self._failing = False
        self._closing = False
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def used_bytes(self) -> int:
        """All files of the directory."""
        prepared = len(self.spares) + len(self._spoiled) + self._has_reserve
        waiting = prepared * self._settings.segment_bytes
        return self._catalog.segment_bytes + STATE_BYTES + self._foreign_bytes + self._in_hand_bytes + waiting

    def start(self) -> None:
        self._task = start_task(self._keep(), "keeper")
        self.wake()

    def wake(self) -> None:
        """There may be something to remove, to prepare or to remember."""
        self._wake.set()

    async def close(self) -> None:
        """A last round, with the state written; then the task and its thread end."""
        self._closing = True
        self.wake()
        if self._task is not None:
            await self._task
        if self._reminder is not None:
            self._reminder.cancel()
        await self._thread.run(self._state.close)
        self._thread.close()

    async def prepare(self, count: int) -> None:
        """Returns once `spares` holds that many. Raises LogFullError if there is no room for all of them,
        LogFailedError if the disk does not make them."""
        async with self._working:
            try:
                await self._fill(count)
            except OSError as error:
                text = f"cannot prepare a segment in {self._directory}: {error}"
                raise (LogFullError if error.errno in _NO_ROOM else LogFailedError)(text) from error

    def used(self, ordinal: int) -> None:
        """The writer has taken this spare; the catalog has it now."""
        self.spares.remove(ordinal)
        self.wake()

    def spoil(self, ordinal: int) -> None:
        """Writing to this spare failed before anything was synced in it: it goes."""
        self.spares.remove(ordinal)
        self._spoiled.append(ordinal)
        self.wake()

    def sealed(self, segment: Segment, *, fenced: bool) -> None:
        """Nothing more is written to this segment: it may be done with, and else the room behind its end is given back;
        not that of a file that failed, which is left as it is."""
        self.wake()
        if not fenced and segment.size_bytes - segment.end_bytes >= CUT_FROM_BYTES:
            self._to_cut.append(segment)

    async def _keep(self) -> None:
        last = False
        while not last:
            await self._wake.wait()
            self._wake.clear()
            last = self._closing
            try:
                await self._round()
            except OSError as error:
                if not self._failing:
                    logger.warning("log housekeeping fails", directory=str(self._directory), reason=str(error))
                self._failing = True
                self._remind(STATE_INTERVAL_S)
            else:
                self._failing = False

    async def _round(self) -> None:
        async with self._working:
            await self._remove()
            while self._to_cut:
                await self._cut(self._to_cut.pop())
            if not self._closing:
                with contextlib.suppress(LogFullError):  # whoever appends is told
                    await self._fill(1)
            await self._remember()

    async def _remove(self) -> None:
        """What is done with, but for the newest that are retained, and what is spoiled."""
        done = self._catalog.done()
        size = sum(segment.size_bytes for segment in done)
        count = 0
        while size > self._settings.retain_acked_bytes:
            size -= done[count].size_bytes
            count += 1
        await self._drop(done[:count])
        spoiled = list(self._spoiled)
        if spoiled:
            await self._thread.run(self._disk.remove, [self._path(ordinal) for ordinal in spoiled])
            del self._spoiled[: len(spoiled)]

    async def _drop(self, done: Sequence[Segment]) -> None:
        """Segments of which all records are settled."""
        if done:
            await self._write_state(done)
            await self._thread.run(self._disk.remove, [self._path(segment.ordinal) for segment in done])
            self._catalog.drop(done, now_ms=self._wall_ms())
            self._on_removed(done)

    async def _fill(self, count: int) -> None:
        """Prepares segments until there are that many spares. Raises LogFullError where the log's limit is reached and
        nothing may go, OSError where the disk does not make them."""
        while len(self.spares) < count or self._lacks_reserve:
            if self.used_bytes + self._settings.segment_bytes > self._settings.max_bytes:
                if not await self._make_room():
                    raise LogFullError(
                        f"the log holds {self.used_bytes:,} bytes; another segment of "
                        f"{self._settings.segment_bytes:,} would pass the limit of {self._settings.max_bytes:,}"
                    )
                continue
            try:
                await self._create()
            except OSError as error:
                if error.errno not in _NO_ROOM or not await self._make_room():
                    raise

    @property
    def _lacks_reserve(self) -> bool:
        return self._settings.evict and not self._has_reserve

    async def _make_room(self) -> bool:
        """Whether something could go: what the cloud has, else what is evicted first."""
        done = self._catalog.done()
        if done:
            await self._drop(done[:1])
            return True
        while self._settings.evict:
            found = victim(self._catalog, may_rewrite=self._has_reserve)
            if found is None:
                return False
            if await self._evict(*found):
                return True
        return False

    async def _evict(self, segment: Segment, least: Priority) -> bool:
        """Lets go of what is below that priority in the segment. False: that made no room, and nothing was lost."""
        epoch = self._catalog.epochs[segment.epoch]
        settled, taken_back = Ranges(epoch.settled.held(segment.first_seq, segment.end_seq)), epoch.taken_back
        first = segment.find(segment.first_seq)
        read = functools.partial(self._disk.read, self._path(segment.ordinal))
        try:
            seen = await self._thread.run(
                survey, read, first, segment.ended, epoch=segment.epoch, least=least, settled=settled
            )
        except OSError as error:
            return self._give_up(segment, error)
        if not self._catalog.may_lose(segment) or epoch.taken_back != taken_back:
            return False
        segment.classes = seen.classes
        limit_losses(seen.runs, settled, self._catalog.evicted_ranges)
        self._catalog.lose(GapKind.DAMAGED, segment, seen.missing, now_ms=self._wall_ms())
        if any(run.is_kept for run in seen.runs):
            return self._has_reserve and await self._rewrite(segment, least, seen)
        self._lose(segment, [(segment.first_seq, segment.end_seq)])
        await self._drop([segment])
        return True

    async def _rewrite(self, segment: Segment, least: Priority, seen: Survey) -> bool:
        """Keeps some runs of the segment's blocks, in a file that takes the place of its own."""
        going = [run for run in seen.runs if not run.is_kept]
        segment.packed = least
        if not going:
            return False
        reserve = self._directory / RESERVE_NAME
        self._lose(segment, [(run.first_seq, run.end_seq) for run in going])
        self._has_reserve = False
        self._in_hand_bytes = self._settings.segment_bytes
        try:
            ended, marks = await self._thread.run(
                write, self._disk, self._path(segment.ordinal), reserve, segment, seen.runs
            )
            await self._write_state(())
            segment.is_moving = True
            await self._thread.run(self._disk.rename, reserve, self._path(segment.ordinal))
            segment.replace(marks, ended)
        except OSError as error:
            with contextlib.suppress(OSError):  # the next start removes it
                await self._thread.run(self._disk.remove, [reserve])
            self._give_up(segment, error)
            return True  # that of the reserve
        finally:
            segment.is_moving = False
            self._in_hand_bytes = 0
        self._on_rewritten(segment)
        return True

    def _give_up(self, segment: Segment, error: OSError) -> bool:
        """Others are evicted instead."""
        logger.warning("segment cannot be rewritten", file=str(self._path(segment.ordinal)), reason=str(error))
        segment.packed = Priority.ALARM
        return False

    def _lose(self, segment: Segment, parts: Sequence[tuple[int, int]]) -> None:
        lost = self._catalog.lose(GapKind.EVICTED, segment, parts, now_ms=self._wall_ms())
        epoch = f"{segment.epoch:016x}"
        logger.warning("log full: records evicted", epoch=epoch, first_seq=parts[0][0], records=lost)

    async def _cut(self, segment: Segment) -> None:
        if self._catalog.get(segment.ordinal) is segment:
            await self._thread.run(self._disk.truncate, self._path(segment.ordinal), segment.end_bytes)
            segment.size_bytes = segment.end_bytes

    async def _create(self) -> None:
        """A reserve, if there is none, else a spare."""
        lacking, ordinal = self._lacks_reserve, self._next_ordinal
        path = self._directory / RESERVE_NAME if lacking else self._path(ordinal)
        self._in_hand_bytes = self._settings.segment_bytes
        try:
            if lacking:
                await self._thread.run(self._disk.remove, [path])  # of a rewriting that failed, maybe
            await self._thread.run(self._disk.create, path, self._settings.segment_bytes)
        finally:
            self._in_hand_bytes = 0
            self._next_ordinal += not lacking
        if lacking:
            self._has_reserve = True
        else:
            self.spares.append(ordinal)

    async def _remember(self) -> None:
        """Writes the state if it has changed: at most once an interval, at once when closing. How far the log goes is
        reason enough only at its end, as it changes with every block."""
        changed = self._catalog.changes != self._written_changes
        if not changed and not (self._closing and self._catalog.active != self._written_active):
            return
        now_s = asyncio.get_running_loop().time()
        if now_s < self._write_after_s and not self._closing:
            self._remind(self._write_after_s - now_s)
            return
        self._write_after_s = now_s + STATE_INTERVAL_S
        await self._write_state(())

    def _remind(self, after_s: float) -> None:
        """One more round then, whatever happens until then."""
        if self._reminder is not None:
            self._reminder.cancel()
        self._reminder = asyncio.get_running_loop().call_later(after_s, self.wake)

    async def _write_state(self, without: Sequence[Segment]) -> None:
        """The state for when the segments `without` are gone; it is on disk before they go."""
        changes = self._catalog.changes
        generation = self._generation + 1
        state = self._catalog.state(without)
        data = encode_state(state, generation)
        await self._thread.run(self._state.write, generation, data)
        self._generation = generation
        self._written_changes = changes
        self._written_active = state.active

    def _path(self, ordinal: int) -> Path:
        return self._directory / segment_name(ordinal)
