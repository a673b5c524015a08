"""What a device is asked, again and again, one request at a time: on a line, two answers would run into each other."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from edge.listeners.answers import Answer
from edge.listeners.refusals import Refusals


class Asked(Protocol):
    """Whom the requests go to."""

    refusals: Refusals

    def ask(self, request: bytes) -> bool:
        """False: it cannot be asked now."""
        ...


class Polls:
    """Each request has a time of its own to come; one that is late is asked once, and not as often as it was missed."""

    def __init__(self, asked: Asked, requests: Sequence[tuple[Answer, float, float]]) -> None:
        """`requests`: what is sent, seconds from one time to the next, seconds that an answer is waited for."""
        self._asked = asked
        self._requests = [(request.filled("", ""), every_s, answer_s) for request, every_s, answer_s in requests]
        self._answer = asyncio.Event()

    def answered(self) -> None:
        """A frame came: the line is free for the next request."""
        self._answer.set()

    async def run(self) -> None:
        """Until cancelled; returns at once where there is nothing to ask."""
        loop = asyncio.get_running_loop()
        due_s = [loop.time() for _ in self._requests]
        while due_s:
            place = min(range(len(due_s)), key=due_s.__getitem__)
            request, every_s, answer_s = self._requests[place]
            await asyncio.sleep(due_s[place] - loop.time())
            due_s[place] = max(due_s[place] + every_s, loop.time())
            self._answer.clear()
            if not self._asked.ask(request):
                continue
            try:
                async with asyncio.timeout(answer_s):
                    await self._answer.wait()
            except TimeoutError:
                self._asked.refusals.count("no_answer", 1)
