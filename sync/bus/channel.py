"""A channel inside the hub: what waits for its readers, and what they have not answered yet."""

from __future__ import annotations

import heapq
from collections import deque
from typing import Final

import msgspec

from protocols.batch import BatchKey
from protocols.messages import Lane

QUEUE_BYTES_MAX: Final = 4 * 1024 * 1024
"""What waits in a channel that does not count, before it loses its oldest: some seconds of full traffic, and a
twentieth of a small gateway's memory. (What counts is bounded by its topic.)"""

QUEUE_BATCHES_MAX: Final = 4096
"""The same bound for small batches, whose objects weigh more than their bytes."""

WINDOW_BYTES_MAX: Final = 8 * 1024 * 1024
"""The largest window a reader is given: what it holds unanswered, and what waits in the socket towards it."""

WINDOW_BATCHES_MAX: Final = 1024
"""The same for small batches; below the socket's own bound, so that a full socket means a reader that stands still."""


class ChannelState(msgspec.Struct, frozen=True):
    """What waits in a channel, in batches."""

    topic: str
    channel: str
    counts: bool
    readers: int
    waiting: int
    """Not delivered to anybody."""
    unanswered: int
    missed: int
    """Lost since the channel began."""


class Publication:
    """A batch on its way, and who wants to know."""

    __slots__ = ("data", "deadline", "done", "key", "lane", "missing", "number", "peer_id", "ticket")

    def __init__(
        self,
        number: int,
        peer_id: bytes,
        ticket: int,
        data: bytes,
        key: BatchKey | None,
        lane: Lane,
        deadline: float,
        missing: list[str],
    ) -> None:
        self.number = number
        """Rising over all topics of the hub: the order of publication."""
        self.peer_id = peer_id
        self.ticket = ticket
        self.data = data
        self.key = key
        self.lane = lane
        self.deadline = deadline
        self.missing = missing
        """Channels that count and have not acknowledged."""
        self.done = False
        """Answered, well or badly: a channel that counts delivers it no more."""


class Item:
    """A publication as one channel sees it."""

    __slots__ = ("delivered", "publication")

    def __init__(self, publication: Publication) -> None:
        self.publication = publication
        self.delivered = False


class HubReader:
    """A reader as the hub sees it: its window, and what it holds by tag."""

    __slots__ = ("batches_max", "bytes_max", "channel", "number", "peer_id", "unanswered", "unanswered_bytes")

    def __init__(self, peer_id: bytes, number: int, channel: Channel, batches_max: int, bytes_max: int) -> None:
        self.peer_id = peer_id
        self.number = number
        self.channel = channel
        self.batches_max = min(batches_max, WINDOW_BATCHES_MAX)
        self.bytes_max = min(bytes_max, WINDOW_BYTES_MAX)
        self.unanswered: dict[int, Item] = {}
        self.unanswered_bytes = 0

    def has_room(self, size: int) -> bool:
        """A batch larger than the whole window goes to a reader that holds nothing else."""
        if not self.unanswered:
            return True
        return len(self.unanswered) < self.batches_max and self.unanswered_bytes + size <= self.bytes_max

    def take(self, tag: int, item: Item) -> None:
        self.unanswered[tag] = item
        self.unanswered_bytes += len(item.publication.data)

    def answer(self, tag: int) -> Item | None:
        """The delivery that this tag answers for; None if it was answered before or is not this reader's."""
        item = self.unanswered.pop(tag, None)
        if item is not None:
            self.unanswered_bytes -= len(item.publication.data)
        return item


class Channel:
    """Batches in order of publication, save those that came back, which go first."""

    def __init__(self, topic: str, name: str, key: str, *, counts: bool, ephemeral: bool) -> None:
        self.topic = topic
        self.name = name
        self.key = key
        """Its name, unless it is ephemeral: several of those may have one name."""
        self.counts = counts
        self.ephemeral = ephemeral
        self.readers: deque[HubReader] = deque()
        self.idle_since = 0.0
        """When the last reader left (seconds, the hub's clock); means nothing while there are readers."""
        self.missed = 0
        """Lost since a reader was last told."""
        self._missed_total = 0
        self._queue: deque[Item] = deque()
        self._queue_bytes = 0
        self._delayed: list[tuple[float, int, Item]] = []
        self._delayed_bytes = 0

    def state(self) -> ChannelState:
        return ChannelState(
            topic=self.topic,
            channel=self.name,
            counts=self.counts,
            readers=len(self.readers),
            waiting=len(self._queue) + len(self._delayed),
            unanswered=sum(len(reader.unanswered) for reader in self.readers),
            missed=self._missed_total,
        )

    def add(self, publication: Publication) -> None:
        """The newest batch. One that is too much for a channel that does not count costs it its oldest."""
        self._queue.append(Item(publication))
        self._queue_bytes += len(publication.data)
        if not self.counts:
            self._trim()

    def give_back(self, items: list[Item]) -> None:
        """Delivered, not answered: before everything that waits, in their old order."""
        for item in sorted(items, key=_number, reverse=True):
            self._queue.appendleft(item)
            self._queue_bytes += len(item.publication.data)
        if not self.counts:
            self._trim()

    def delay(self, item: Item, until: float) -> None:
        """Like give_back, but not before `until`, if the channel can hold it as long."""
        size = len(item.publication.data)
        full = self._delayed_bytes + size > QUEUE_BYTES_MAX or len(self._delayed) >= QUEUE_BATCHES_MAX
        if full and not self.counts:
            self.give_back([item])
            return
        heapq.heappush(self._delayed, (until, item.publication.number, item))
        self._delayed_bytes += size

    def release(self, now: float) -> bool:
        """Gives back what is due; True if anything was."""
        due: list[Item] = []
        while self._delayed and self._delayed[0][0] <= now:
            item = heapq.heappop(self._delayed)[2]
            self._delayed_bytes -= len(item.publication.data)
            due.append(item)
        self.give_back(due)
        return bool(due)

    def drop_done(self) -> None:
        """Forgets what was answered without this channel, wherever it waits."""
        self._queue = deque(item for item in self._queue if not item.publication.done)
        self._queue_bytes = sum(len(item.publication.data) for item in self._queue)
        self._delayed = [entry for entry in self._delayed if not entry[2].publication.done]
        heapq.heapify(self._delayed)
        self._delayed_bytes = sum(len(entry[2].publication.data) for entry in self._delayed)

    def next_delivery(self) -> tuple[HubReader, Item] | None:
        """The oldest batch and the reader whose turn it is, among those with room; None if either is missing."""
        queue = self._queue
        while queue:
            item = queue[0]
            size = len(item.publication.data)
            reader = None
            if not (self.counts and item.publication.done):
                reader = self._reader_with_room(size)
                if reader is None:
                    return None
            queue.popleft()
            self._queue_bytes -= size
            if reader is not None:
                return reader, item
        return None

    def _reader_with_room(self, size: int) -> HubReader | None:
        readers = self.readers
        for _ in range(len(readers)):
            reader = readers[0]
            readers.rotate(-1)
            if reader.has_room(size):
                return reader
        return None

    def _trim(self) -> None:
        queue = self._queue
        while len(queue) > 1 and (self._queue_bytes > QUEUE_BYTES_MAX or len(queue) > QUEUE_BATCHES_MAX):
            self._queue_bytes -= len(queue.popleft().publication.data)
            self.missed += 1
            self._missed_total += 1


def _number(item: Item) -> int:
    return item.publication.number
