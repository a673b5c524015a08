"""The tasks of a gateway: those that it cannot be without, and those that may fail and are started again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, Final

from tidegate.logs import get_logger

RESTART_S: Final = 1.0
"""Before a part that failed is started again: a defect that is met at once must not fill the gateway's time."""

_log = get_logger("edge.app")


class PartEndedError(Exception):
    """A part that the gateway needs ended by itself."""


class Background:
    def __init__(self) -> None:
        self._needed: list[asyncio.Task[None]] = []

    @contextlib.asynccontextmanager
    async def needed(self, name: str, run: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
        """Runs beside the block. If it ends by itself, `until` does too."""
        task = asyncio.create_task(run, name=name)
        self._needed.append(task)
        async with _cancelled_at_end(task):
            yield task

    async def until(self, stop: asyncio.Event) -> None:
        """Waits for `stop`. Raises what a needed part raised, or PartEndedError."""
        stopping = asyncio.create_task(stop.wait())
        async with _cancelled_at_end(stopping):
            await asyncio.wait((stopping, *self._needed), return_when=asyncio.FIRST_COMPLETED)
            for task in self._needed:
                if task.done():
                    task.result()
                    raise PartEndedError(f"the {task.get_name()} ended")


@contextlib.asynccontextmanager
async def restarted(name: str, run: Callable[[], Awaitable[None]]) -> AsyncIterator[asyncio.Task[None]]:
    """Runs beside the block, again and again until it returns, whatever it raises."""
    task = asyncio.create_task(_run_again(name, run), name=name)
    async with _cancelled_at_end(task):
        yield task


async def _run_again(name: str, run: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await run()
            return
        except Exception:  # noqa: BLE001 - devices are answered whatever defect the link or the resolver has
            _log.exception("a part failed and is started again", name=name)
        await asyncio.sleep(RESTART_S)


@contextlib.asynccontextmanager
async def _cancelled_at_end(task: asyncio.Task[Any]) -> AsyncIterator[None]:
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))
        if not task.cancelled():
            task.exception()  # whoever waits for the gateway's end has it; here it is only looked at
