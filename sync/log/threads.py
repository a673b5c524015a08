"""The log's own threads and tasks: the disk's work never waits behind other work of the process, nor holds up the event
loop, and none of it ends unseen."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from tidegate.logs import get_logger

P = ParamSpec("P")
T = TypeVar("T")

logger = get_logger("sync.log")


class DiskThread:
    """One thread; its calls run one after the other."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The call's result. Cancelling leaves the call running; the next one waits for it. Calls go through the event
        loop, so that a loop with an order of its own decides when they run."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, functools.partial(call, *args, **kwargs))

    def close(self) -> None:
        """Returns once its calls have ended."""
        self._executor.shutdown(wait=True)


def start_task(work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
    """A task whose failure, which only a mistake in the code can be, is logged at once."""

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            logger.critical("a task of the log has failed", task=name, exc_info=task.exception())

    task = asyncio.ensure_future(work)
    task.add_done_callback(ended)
    return task
