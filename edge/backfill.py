"""What waits in the log behind what is new: events and alarms, oldest first, and the rest, newest stretch first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator

from edge.feed import Feed
from protocols.messages import Priority
from sync.log.log import Log, Place, Stretch, StretchReader


class Backfill:
    """Nothing comes before `begin`. Two readers go over the backlog at the same time: what is urgent goes as soon as it
    is found, and the rest flows while a large log is looked through for it."""

    def __init__(self, log: Log, wake: Callable[[], None]) -> None:
        self._log = log
        self._wake = wake
        self._until: Place | None = None
        self._feeds: tuple[Feed, ...] = ()
        self._ending: set[asyncio.Future[None]] = set()

    @property
    def is_waiting(self) -> bool:
        """There may be more to give."""
        return not all(feed.has_ended for feed in self._feeds)

    def begin(self, until: Place) -> None:
        """From now on it gives what is before that place, and neither settled nor in flight."""
        self._until = until
        self._cancel()
        stretches = self._log.stretches()
        urgent = [one for one in reversed(stretches) if one.priority is None or one.priority > Priority.TELEMETRY]
        self._feeds = (
            Feed(self._readers(urgent, until, Priority.EVENT), self._wake),
            Feed(self._readers(stretches, until, Priority.TELEMETRY), self._wake),
        )

    def look_again(self) -> None:
        """There may be more than there was at `begin`."""
        if self._until is not None:
            self.begin(self._until)

    def take(self, blocks_max: int, bytes_max: int) -> list[bytes]:
        """What is at hand; maybe nothing."""
        for feed in self._feeds:
            blocks = feed.take(blocks_max, bytes_max)
            if blocks:
                return blocks
        return []

    async def close(self) -> None:
        self._cancel()
        if self._ending:
            await asyncio.wait(self._ending)

    def _readers(self, stretches: Iterable[Stretch], until: Place, least: Priority) -> Iterator[StretchReader]:
        for stretch in stretches:
            if Place(stretch.ordinal, stretch.first_seq) < until:
                yield self._log.stretch_reader(stretch, until=until, least=least)

    def _cancel(self) -> None:
        for feed in self._feeds:
            ending = feed.cancel()
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)
        self._feeds = ()
