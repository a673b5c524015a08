"""Watches what waits in the topics, and says how much credit gateways have."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from cloud.model.credit import FULL, Credit, credit, lag
from sync.bus.contract import BusError
from sync.bus.jetstream_streams import TopicStats
from tidegate.logs import get_logger
from tidegate.pause import pause

LOOK_EVERY_S: Final = 0.5
"""What gateways send in this time beyond the mark is some megabytes; six questions to JetStream, 10 ms."""

_log = get_logger("credit")


class CreditWatch:
    def __init__(self, stats: Callable[[], Awaitable[Sequence[TopicStats]]]) -> None:
        """`stats`: what waits in the topics; raises BusError."""
        self._stats = stats
        self._changed = asyncio.Event()
        self.credit = FULL
        """What holds now, for each gateway."""
        self.topics: Sequence[TopicStats] = ()
        """As they were seen last."""

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                self.look(await self._stats())
            except BusError as error:
                _log.warning("lag not known, credit stays", reason=str(error))
            await pause(stop, LOOK_EVERY_S)

    def look(self, topics: Sequence[TopicStats]) -> None:
        """Takes this for what waits now."""
        self.topics = topics
        now = credit(lag(topics), self.credit)
        if now != self.credit:
            _log.info("credit", all_bytes=now.all_bytes, backfill_bytes=now.backfill_bytes)
            self.credit = now
            self._changed.set()
            self._changed = asyncio.Event()

    async def changed(self, seen: Credit) -> Credit:
        """The credit, once it is another one than `seen`."""
        while self.credit == seen:
            await self._changed.wait()
        return self.credit
