"""Housekeeping of the directory: prepares segments ahead, remembers what is accepted, removes what is done with."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from sync.log.catalog import Catalog
from sync.log.disk import Disk, SyncedFile
from sync.log.errors import LogFailedError, LogFullError
from sync.log.segment import Ended, Segment, segment_name
from sync.log.settings import CUT_FROM_BYTES, STATE_BYTES, STATE_FILE_BYTES, STATE_INTERVAL_S, LogSettings
from sync.log.state import encode_state, state_name, state_names
from sync.log.threads import DiskThread, start_task
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
        on_removed: Callable[[Sequence[Segment]], None],
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
        self._on_removed = on_removed
        self._thread = DiskThread("log-keeper")
        self._preparing = asyncio.Lock()
        self._creating_bytes = 0
        self._spoiled: list[int] = []
        self._to_cut: list[Segment] = []
        self._state_files: dict[str, SyncedFile] = {}
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
        waiting = (len(self.spares) + len(self._spoiled)) * self._settings.segment_bytes
        return self._catalog.segment_bytes + STATE_BYTES + self._foreign_bytes + self._creating_bytes + waiting

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
        await self._thread.run(self._close_state)
        self._thread.close()

    async def prepare(self, count: int) -> None:
        """Returns once `spares` holds that many. Raises LogFullError if there is no room for all of them,
        LogFailedError if the disk does not make them."""
        async with self._preparing:
            while len(self.spares) < count:
                if not self._has_room():
                    raise LogFullError(
                        f"the log holds {self.used_bytes:,} bytes; another segment of {self._settings.segment_bytes:,} "
                        f"would pass the limit of {self._settings.max_bytes:,}"
                    )
                try:
                    await self._create()
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
        await self._remove()
        while self._to_cut:
            await self._cut(self._to_cut.pop())
        if not self._closing:
            async with self._preparing:
                if not self.spares and self._has_room():
                    await self._create()
        await self._remember()

    async def _remove(self) -> None:
        done = self._catalog.done()
        if done:
            await self._write_state(done)
        spoiled = list(self._spoiled)
        ordinals = [segment.ordinal for segment in done] + spoiled
        if ordinals:
            await self._thread.run(self._disk.remove, [self._path(ordinal) for ordinal in ordinals])
            del self._spoiled[: len(spoiled)]
            self._catalog.drop(done)
            self._on_removed(done)

    async def _cut(self, segment: Segment) -> None:
        if self._catalog.get(segment.ordinal) is segment:
            await self._thread.run(self._disk.truncate, self._path(segment.ordinal), segment.end_bytes)
            segment.size_bytes = segment.end_bytes

    async def _create(self) -> None:
        ordinal = self._next_ordinal
        self._next_ordinal += 1
        self._creating_bytes = self._settings.segment_bytes
        try:
            await self._thread.run(self._disk.create, self._path(ordinal), self._settings.segment_bytes)
            self.spares.append(ordinal)
        finally:
            self._creating_bytes = 0

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
        await self._thread.run(self._write_state_file, state_name(generation), data)
        self._generation = generation
        self._written_changes = changes
        self._written_active = state.active

    def _write_state_file(self, name: str, data: bytes) -> None:
        self._open_state()
        file = self._state_files[name]
        try:
            file.write((data,), 0)
        except OSError:
            # A file whose sync failed is never written again. The other one holds what was remembered before.
            del self._state_files[name]
            file.close()
            self._disk.remove([self._directory / name])
            raise

    def _open_state(self) -> None:
        """Sees to it that both files are there, with their room."""
        missing = [name for name in state_names() if name not in self._state_files]
        sizes = self._disk.sizes(self._directory) if missing else {}
        for name in missing:
            path = self._directory / name
            if sizes.get(name) != STATE_FILE_BYTES:
                self._disk.remove([path])
                self._disk.create(path, STATE_FILE_BYTES)
            self._state_files[name] = self._disk.open(path)

    def _close_state(self) -> None:
        for file in self._state_files.values():
            file.close()
        self._state_files.clear()

    def _has_room(self) -> bool:
        return self.used_bytes + self._settings.segment_bytes <= self._settings.max_bytes

    def _path(self, ordinal: int) -> Path:
        return self._directory / segment_name(ordinal)
