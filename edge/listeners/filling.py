"""The batch that is being filled, and what is owed to whom once it is recorded."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol

import msgspec

from protocols.batch import BatchKey, RecordBatch, encode_records
from protocols.limits import BATCH_BYTES_MAX, BATCH_RECORDS_MAX
from protocols.messages import Clock, Origin, Priority

BATCH_HEAD_BYTES_MAX: Final = 128
"""Version, checksum, key, clock, base time and the heads of five arrays, each at its longest, come to 79."""

ROW_BYTES_MAX: Final = 17
"""What a row adds to its payload: 5 for the payload's length, 3 for the origin's index, 9 for the time."""

METADATA_HEAD_BYTES_MAX: Final = 3
"""The head of a row's metadata, in a batch where any row has some."""

_encoder: Final = msgspec.msgpack.Encoder()


class Owed(msgspec.Struct):
    """One waiter's share of a batch."""

    tokens: list[bytes]
    """Of the rows that want an answer, in the order in which they came."""
    rows: int
    bytes: int
    """Of the rows' payloads."""


class Waiter(Protocol):
    """Who is answered: a connection. Called once for each batch that holds rows of it; must not raise."""

    def recorded(self, owed: Owed) -> None:
        """The rows are on disk."""
        ...

    def refused(self, owed: Owed, code: str) -> None:
        """The rows are not kept: they must not be acknowledged."""
        ...


Flush = Callable[[], Awaitable[None]]


class Pledger(Waiter, Protocol):
    """A waiter that must know after a crash which of its rows were recorded: it notes the key of their batch, which the
    log knows if it has it."""

    def pledge(self, owed: Owed, keys: Mapping[Priority, BatchKey]) -> Flush | None:
        """Before the rows are recorded; `keys`: of the batches that they are in, by the priority of their origin.
        Returns what to await until the note is safe: the same for all waiters that keep their notes in one place."""
        ...


class Part(msgspec.Struct, frozen=True):
    """One encoded batch of a filling: its rows of one priority."""

    key: BatchKey
    priority: Priority
    data: bytes


class Filling:
    """Columns that grow until the batch is taken; keeps every limit of protocols/batch.py."""

    __slots__ = (
        "_deltas", "_index", "_metadata", "_origins", "_payloads", "_places", "base_ms", "bytes", "clock", "owed",
        "pledges", "rows",
    )  # fmt: skip

    def __init__(self, clock: Clock, base_ms: int) -> None:
        self.clock = clock
        self.base_ms = base_ms
        self.rows = 0
        self.bytes = BATCH_HEAD_BYTES_MAX
        """At most so many once encoded."""
        self.owed: dict[Waiter, Owed] = {}
        self.pledges: set[Pledger] = set()
        """Those waiters that note down what is about to be recorded."""
        self._origins: list[Origin] = []
        self._places: dict[int, int] = {}  # by identity: hashing seven fields costs more than the rest of a row
        self._index: list[int] = []
        self._deltas: list[int] = []
        self._payloads: list[bytes] = []
        self._metadata: list[bytes] = []

    def add(
        self,
        origin: Origin,
        payloads: list[bytes],
        received_ms: int,
        waiter: Waiter | None,
        tokens: Sequence[bytes],
        metadata: bytes = b"",
    ) -> int:
        """Takes rows from the front of `payloads` while there is room, and returns how many it took.

        `tokens` is empty or as long as `payloads`. An empty batch takes at least one row of any allowed size.
        """
        place = self._places.get(id(origin))
        origin_bytes = len(_encoder.encode(origin)) if place is None else 0
        free = BATCH_BYTES_MAX - self.bytes - origin_bytes
        taken = len(payloads)
        size = sum(map(len, payloads))
        row_bytes = ROW_BYTES_MAX + len(metadata)
        if metadata and not self._metadata:
            free -= self.rows * METADATA_HEAD_BYTES_MAX
        if metadata or self._metadata:
            row_bytes += METADATA_HEAD_BYTES_MAX
        if taken > BATCH_RECORDS_MAX - self.rows or size + taken * row_bytes > free:
            taken, size = self._fitting(payloads, free, row_bytes)
            if not taken:
                return 0
            payloads, tokens = payloads[:taken], tokens[:taken]
        if place is None:
            place = self._places[id(origin)] = len(self._origins)
            self._origins.append(origin)
        if metadata and not self._metadata:
            self._metadata = [b""] * self.rows
            self.bytes += self.rows * METADATA_HEAD_BYTES_MAX
        if metadata or self._metadata:
            self._metadata += [metadata] * taken
        self.bytes += origin_bytes + size + taken * row_bytes
        self.rows += taken
        delta = received_ms - self.base_ms
        if taken == 1:
            self._payloads.append(payloads[0])
            self._index.append(place)
            self._deltas.append(delta)
        else:
            self._payloads += payloads
            self._index += [place] * taken
            self._deltas += [delta] * taken
        if waiter is not None:
            owed = self.owed.get(waiter)
            if owed is None:
                self.owed[waiter] = Owed(list(tokens), taken, size)
            else:
                owed.tokens += tokens
                owed.rows += taken
                owed.bytes += size
        return taken

    def encode(self, next_key: Callable[[], BatchKey]) -> list[Part]:
        """A batch for each priority that there is, the highest first, each under a key of its own: what a full log lets
        go is not to stand in one block with what it keeps."""
        present = sorted({origin.priority for origin in self._origins}, reverse=True)
        if len(present) > 1:
            return [self._encode_part(next_key(), priority) for priority in present]
        columns = (self._origins, self._index, self._deltas, self._payloads, self._metadata)
        return [self._encode(next_key(), present[0], *columns)]

    def _encode_part(self, key: BatchKey, priority: Priority) -> Part:
        places = [place for place, origin in enumerate(self._origins) if origin.priority == priority]
        moved = {place: at for at, place in enumerate(places)}
        rows = [row for row, place in enumerate(self._index) if place in moved]
        return self._encode(
            key,
            priority,
            [self._origins[place] for place in places],
            [moved[self._index[row]] for row in rows],
            [self._deltas[row] for row in rows],
            [self._payloads[row] for row in rows],
            [self._metadata[row] for row in rows] if self._metadata else [],
        )

    def _encode(
        self,
        key: BatchKey,
        priority: Priority,
        origins: list[Origin],
        index: list[int],
        deltas: list[int],
        payloads: list[bytes],
        metadata: list[bytes],
    ) -> Part:
        batch = RecordBatch(key, self.clock, self.base_ms, origins, index, deltas, payloads, metadata)
        return Part(key, priority, encode_records(batch))

    def _fitting(self, payloads: list[bytes], free: int, row_bytes: int) -> tuple[int, int]:
        """How many rows fit, and the bytes of their payloads."""
        taken = size = 0
        for payload in payloads[: BATCH_RECORDS_MAX - self.rows]:
            if size + len(payload) + (taken + 1) * row_bytes > free:
                break
            size += len(payload)
            taken += 1
        return taken, size
