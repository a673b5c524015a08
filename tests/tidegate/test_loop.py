"""The loop: a signal ends a process well, a second one ends it now."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
import uvloop

from tidegate import loop


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_sets_stop(number: signal.Signals) -> None:
    seen: list[object] = []

    async def main(stop: asyncio.Event) -> None:
        seen.append(type(asyncio.get_running_loop()))
        os.kill(os.getpid(), number)
        await stop.wait()
        seen.append("finished")

    loop.run(main)
    assert seen == [uvloop.Loop, "finished"]


def test_a_second_signal_does_not_wait() -> None:
    seen: list[object] = []

    async def main(stop: asyncio.Event) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await stop.wait()
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("cleaned up")

    with pytest.raises(KeyboardInterrupt):
        loop.run(main)
    assert seen == ["cleaned up"]


def test_an_error_comes_out() -> None:
    async def main(stop: asyncio.Event) -> None:
        raise OSError("the port is taken")

    with pytest.raises(OSError, match="the port is taken"):
        loop.run(main)


def test_signals_are_as_before_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)

    async def main(stop: asyncio.Event) -> None: ...

    loop.run(main)
    assert signal.getsignal(signal.SIGTERM) == before
