"""Readers of the log, one after the other, whose blocks are taken as they are at hand; somebody is told of more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from tidegate.logs import get_logger

READ_AGAIN_S: Final = 1.0
"""After the disk failed to read: it may only be busy or being mounted, and a failing one needs no hurry."""

logger = get_logger("sender")


class Reader(Protocol):
    """What the log's readers have in common."""

    @property
    def ended(self) -> bool:
        """Everything was given; one that follows the log never ends."""
        ...

    async def ready(self) -> None:
        """Returns once `take` has something to give, or the end has come. May be cancelled without loss. Raises
        OSError if the disk cannot be read now."""
        ...

    def take(self, blocks_max: int, bytes_max: int) -> list[bytes]:
        """Whole blocks that are at hand, within the bounds, save a single one that is larger; maybe none."""
        ...

    def close(self) -> None: ...


class Feed:
    """One task, however much goes through: it waits for what the reader has not at hand."""

    def __init__(self, readers: Iterable[Reader], wake: Callable[[], None]) -> None:
        """`readers` are asked for one by one, and closed; `wake` is called when there is more to take."""
        self._readers = readers
        self._wake = wake
        self._reader: Reader | None = None
        self._empty = asyncio.Event()
        self._task = asyncio.ensure_future(self._run())
        self._task.add_done_callback(self._note_end)

    @property
    def has_ended(self) -> bool:
        return self._task.done()

    def take(self, blocks_max: int, bytes_max: int) -> list[bytes]:
        """What is at hand; maybe nothing. Raises what the readers raised meanwhile, save OSError."""
        blocks = [] if self._reader is None else self._reader.take(blocks_max, bytes_max)
        if not blocks:
            if self._task.done():
                self._task.result()
            self._empty.set()
        return blocks

    def cancel(self) -> asyncio.Future[None]:
        """Nothing more is taken; done when the readers are closed."""
        self._reader = None
        self._task.cancel()
        return self._task

    def _note_end(self, task: asyncio.Future[None]) -> None:
        if not task.cancelled():
            task.exception()  # looked at, also where nobody takes any more
            self._wake()

    async def _run(self) -> None:
        for reader in self._readers:
            self._reader = reader
            try:
                while await _has_more(reader):
                    self._empty.clear()
                    self._wake()
                    await self._empty.wait()
            finally:
                self._reader = None
                reader.close()


async def _has_more(reader: Reader) -> bool:
    while True:
        try:
            await reader.ready()
        except OSError as error:
            logger.warning("log cannot be read now", reason=str(error))
            await asyncio.sleep(READ_AGAIN_S)
        else:
            return not reader.ended
