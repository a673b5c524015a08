"""Blocks read from the log before they are asked for, so that the link never waits for the disk."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from tidegate.logs import get_logger

AHEAD_BYTES: Final = 1024 * 1024
"""Read before it is asked for: four of the largest frames, 50 ms of a fast link. A single block may come on top."""

READ_BLOCKS: Final = 512
READ_BYTES: Final = 256 * 1024
"""One call of the reader: a frame's worth."""

READ_AGAIN_S: Final = 1.0
"""After the disk failed to read: it may only be busy or being mounted, and a failing one needs no hurry."""

Read = Callable[[int, int], Awaitable[list[bytes]]]

logger = get_logger("sender")


class ReadAhead:
    """Calls `read(blocks_max, bytes_max)` in a task of its own, until it gives nothing; what it raises, save OSError,
    comes out of `take`."""

    def __init__(self, read: Read, wake: Callable[[], None]) -> None:
        """`wake` is called when there is more, or the end has come."""
        self._read = read
        self._wake = wake
        self._blocks: deque[bytes] = deque()
        self._taken = asyncio.Event()
        self.size_bytes = 0
        self._task = asyncio.ensure_future(self._run())
        self._task.add_done_callback(lambda _: wake())

    @property
    def has_ended(self) -> bool:
        """`read` gave nothing, and nothing is left here."""
        return not self._blocks and self._task.done()

    def take(self, blocks_max: int, bytes_max: int) -> list[bytes]:
        """Up to both bounds, but a first block that is larger; nothing, if none is here yet."""
        taken: list[bytes] = []
        size = 0
        blocks = self._blocks
        while blocks and len(taken) < blocks_max and (not taken or size + len(blocks[0]) <= bytes_max):
            block = blocks.popleft()
            taken.append(block)
            size += len(block)
        self.size_bytes -= size
        if taken:
            self._taken.set()
        elif self._task.done() and not self._task.cancelled():
            self._task.result()
        return taken

    def clear(self) -> None:
        """Forgets what was read: the reader was moved."""
        self._blocks.clear()
        self.size_bytes = 0
        self._taken.set()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait((self._task,))

    async def _run(self) -> None:
        while True:
            self._taken.clear()
            if self.size_bytes >= AHEAD_BYTES:
                await self._taken.wait()
                continue
            try:
                blocks = await self._read(READ_BLOCKS, READ_BYTES)
            except OSError as error:
                logger.warning("log cannot be read now", reason=str(error))
                await asyncio.sleep(READ_AGAIN_S)
                continue
            if not blocks:
                return
            self._blocks.extend(blocks)
            self.size_bytes += sum(map(len, blocks))
            self._wake()
