"""One look for many: requests that come at the same time with the same question share the answer.

Nothing is remembered, so nothing has to be made forgotten: whoever asks is told what was so after they had asked. That
keeps an ended session or a withdrawn right from working a moment longer, at a fraction of a look for each request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Final, Generic, TypeVar

SPACING_S: Final = 0.005
"""What a request waits beside the look before it, where there is one, so that others can join."""

Asked = TypeVar("Asked", bound=Hashable)
Told = TypeVar("Told")


class SharedLooks(Generic[Asked, Told]):
    def __init__(self, look: Callable[[Asked], Awaitable[Told]]) -> None:
        self._look = look
        self._next: dict[Asked, asyncio.Task[Told]] = {}
        """Has not begun to look: who asks joins it."""
        self._now: dict[Asked, asyncio.Task[Told]] = {}

    async def ask(self, asked: Asked) -> Told:
        """What a look gives, or raises, that begins from now on."""
        task = self._next.get(asked)
        if task is None:
            task = self._next[asked] = asyncio.create_task(self._take_turn(asked, self._now.get(asked)))
            task.add_done_callback(_retrieved)
        return await asyncio.shield(task)

    async def _take_turn(self, asked: Asked, before: asyncio.Task[Told] | None) -> Told:
        if before is not None:
            await asyncio.gather(asyncio.wait([before]), asyncio.sleep(SPACING_S))
        self._now[asked] = self._next.pop(asked)
        try:
            return await self._look(asked)
        finally:
            del self._now[asked]


def _retrieved(task: asyncio.Task[Told]) -> None:
    """Those who asked may all be gone, and then nobody else looks at its error."""
    if not task.cancelled():
        task.exception()
