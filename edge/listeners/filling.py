"""The batch that is being filled, and what is owed to whom once it is recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec

from protocols.batch import BatchKey, RecordBatch, encode_records
from protocols.limits import BATCH_BYTES_MAX, BATCH_RECORDS_MAX
from protocols.messages import Clock, Origin, Priority

BATCH_HEAD_BYTES_MAX: Final = 128
"""Version, checksum, key, clock, base time and the heads of four arrays, each at its longest, come to 74."""

ROW_BYTES_MAX: Final = 17
"""What a row adds to its payload: 5 for the payload's length, 3 for the origin's index, 9 for the time."""

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


class Filling:
    """Columns that grow until the batch is taken; keeps every limit of protocols/batch.py."""

    __slots__ = ("_deltas", "_index", "_origins", "_payloads", "_places", "base_ms", "bytes", "clock", "owed", "rows")

    def __init__(self, clock: Clock, base_ms: int) -> None:
        self.clock = clock
        self.base_ms = base_ms
        self.rows = 0
        self.bytes = BATCH_HEAD_BYTES_MAX
        """At most so many once encoded."""
        self.owed: dict[Waiter, Owed] = {}
        self._origins: list[Origin] = []
        self._places: dict[int, int] = {}  # by identity: hashing seven fields costs more than the rest of a row
        self._index: list[int] = []
        self._deltas: list[int] = []
        self._payloads: list[bytes] = []

    def add(
        self, origin: Origin, payloads: list[bytes], received_ms: int, waiter: Waiter | None, tokens: Sequence[bytes]
    ) -> int:
        """Takes rows from the front of `payloads` while there is room, and returns how many it took.

        `tokens` is empty or as long as `payloads`. An empty batch takes at least one row of any allowed size.
        """
        place = self._places.get(id(origin))
        origin_bytes = len(_encoder.encode(origin)) if place is None else 0
        free = BATCH_BYTES_MAX - self.bytes - origin_bytes
        taken = len(payloads)
        size = sum(map(len, payloads))
        if taken > BATCH_RECORDS_MAX - self.rows or size + taken * ROW_BYTES_MAX > free:
            taken, size = self._fitting(payloads, free)
            if not taken:
                return 0
            payloads, tokens = payloads[:taken], tokens[:taken]
        if place is None:
            place = self._places[id(origin)] = len(self._origins)
            self._origins.append(origin)
        self.bytes += origin_bytes + size + taken * ROW_BYTES_MAX
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

    def encode(self, next_key: Callable[[], BatchKey]) -> list[tuple[BatchKey, bytes]]:
        """A batch for each priority that there is, the highest first, each under a key of its own: what a full log lets
        go is not to stand in one block with what it keeps."""
        present = sorted({origin.priority for origin in self._origins}, reverse=True)
        if len(present) > 1:
            return [self._encode_part(next_key(), priority) for priority in present]
        return [self._encode(next_key(), self._origins, self._index, self._deltas, self._payloads)]

    def _encode_part(self, key: BatchKey, priority: Priority) -> tuple[BatchKey, bytes]:
        places = [place for place, origin in enumerate(self._origins) if origin.priority == priority]
        moved = {place: at for at, place in enumerate(places)}
        rows = [row for row, place in enumerate(self._index) if place in moved]
        return self._encode(
            key,
            [self._origins[place] for place in places],
            [moved[self._index[row]] for row in rows],
            [self._deltas[row] for row in rows],
            [self._payloads[row] for row in rows],
        )

    def _encode(
        self, key: BatchKey, origins: list[Origin], index: list[int], deltas: list[int], payloads: list[bytes]
    ) -> tuple[BatchKey, bytes]:
        return key, encode_records(RecordBatch(key, self.clock, self.base_ms, origins, index, deltas, payloads))

    def _fitting(self, payloads: list[bytes], free: int) -> tuple[int, int]:
        """How many rows fit, and the bytes of their payloads."""
        taken = size = 0
        for payload in payloads[: BATCH_RECORDS_MAX - self.rows]:
            if size + len(payload) + (taken + 1) * ROW_BYTES_MAX > free:
                break
            size += len(payload)
            taken += 1
        return taken, size
