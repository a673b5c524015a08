"""Requests by schedule, on a clock that stands still until everything waits."""

from __future__ import annotations

import asyncio

import pytest

from edge.listeners.answers import Answer
from edge.listeners.idle import IdleTimer
from edge.listeners.polls import Polls
from edge.listeners.refusals import Refusals
from tests.edge.listeners.virtual_loop import run


class Line:
    def __init__(self) -> None:
        self.asked: list[tuple[float, bytes]] = []
        self.refusals = Refusals("meter")
        self.is_there = True

    def ask(self, request: bytes) -> bool:
        self.asked.append((round(asyncio.get_running_loop().time() - self.began_s, 3), request))
        return self.is_there

    began_s = 0.0


def test_each_request_has_its_own_time_and_waits_for_the_line() -> None:
    async def work() -> None:
        line = Line()
        line.began_s = asyncio.get_running_loop().time()
        polls = Polls(line, [(Answer("a"), 10.0, 1.0), (Answer("b"), 4.0, 1.0)])
        task = asyncio.create_task(polls.run())
        await asyncio.sleep(9.5)
        task.cancel()
        # Nobody answers: b waits for a's time to be over.
        assert line.asked == [(0.0, b"a"), (1.0, b"b"), (4.0, b"b"), (8.0, b"b")]
        assert line.refusals.counts == {"no_answer": 4}

    run(work())


def test_an_answer_frees_the_line_at_once() -> None:
    async def work() -> None:
        line = Line()
        line.began_s = asyncio.get_running_loop().time()
        polls = Polls(line, [(Answer("a"), 10.0, 1.0), (Answer("b"), 10.0, 1.0)])
        task = asyncio.create_task(polls.run())
        await asyncio.sleep(0.25)
        polls.answered()
        await asyncio.sleep(0.5)
        task.cancel()
        assert line.asked == [(0.0, b"a"), (0.25, b"b")]
        assert line.refusals.counts == {}

    run(work())


def test_nothing_to_ask_is_no_work() -> None:
    async def work() -> None:
        await asyncio.wait_for(Polls(Line(), []).run(), 1)

    run(work())


@pytest.mark.parametrize("sounds", [[0.0], [0.0, 0.05, 0.1], [0.0, 0.3]])
def test_a_silence_is_noticed_once(sounds: list[float]) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        calls: list[float] = []
        timer = IdleTimer(loop, 0.1, lambda: calls.append(round(loop.time() - began_s, 3)))
        for sound in sounds:
            await asyncio.sleep(began_s + sound - loop.time())
            timer.heard()
        await asyncio.sleep(5)
        expected = [0.1, 0.4] if sounds == [0.0, 0.3] else [round(sounds[-1] + 0.1, 3)]
        assert calls == expected
        timer.heard()
        timer.stop()
        await asyncio.sleep(5)
        assert calls == expected

    run(work())
