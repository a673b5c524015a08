"""The event loop of a process that runs until it is told to stop: uvloop, and signals as an event."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable

import uvloop

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run(main: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Runs `main(stop)` to its end on uvloop.

    The first SIGINT or SIGTERM sets `stop`: main finishes what it has begun and returns, and the process ends well. A
    second one, from somebody who does not want to wait, cancels main and raises KeyboardInterrupt.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_until_stopped(main))


async def _until_stopped(main: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(main(stop))
    impatient = False

    def on_signal() -> None:
        nonlocal impatient
        if stop.is_set():
            impatient = True
            task.cancel()
        stop.set()

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, on_signal)
    try:
        await task
    except asyncio.CancelledError:
        if impatient:
            raise KeyboardInterrupt from None
        raise
    finally:
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)
