"""SIGHUP, which means two things: the configuration is to be read again; or, for a gateway that somebody runs in a
terminal, that the terminal is gone, and with it whoever would have ended it by Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from edge.reload import Reloaded

_OUTPUTS = (1, 2)


@contextlib.contextmanager
def rereading(read: Callable[[], Coroutine[Any, Any, Reloaded]], stop: asyncio.Event) -> Iterator[None]:
    """Within the block SIGHUP does that; `read` reads the configuration, and puts it in force."""
    loop = asyncio.get_running_loop()
    under_way: set[asyncio.Task[Reloaded]] = set()
    has_terminal = os.isatty(2)

    def on_signal() -> None:
        if has_terminal and not os.isatty(2):
            _say_nothing_more()
            stop.set()
            return
        task = loop.create_task(read(), name="reload")
        under_way.add(task)
        task.add_done_callback(under_way.discard)

    loop.add_signal_handler(signal.SIGHUP, on_signal)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


def _say_nothing_more() -> None:
    """What is written to a terminal that is gone is an error, which is not to get in the way of a good end."""
    null = os.open(os.devnull, os.O_WRONLY)
    for number in _OUTPUTS:
        os.dup2(null, number)
    os.close(null)
