"""The newest synced blocks, in memory: readers that keep up are served from here."""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from protocols.block import BlockHead


class Position(msgspec.Struct, frozen=True, order=True):
    """A place in the log; rises with it."""

    ordinal: int
    """Of the segment."""
    offset: int
    """In the segment's file, bytes."""


class Tail:
    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._blocks: OrderedDict[Position, tuple[BlockHead, bytes]] = OrderedDict()

    def add(self, position: Position, head: BlockHead, data: bytes) -> None:
        self._blocks[position] = head, data
        self._bytes += len(data)
        while self._bytes > self._bytes_max:
            _, (_, oldest) = self._blocks.popitem(last=False)
            self._bytes -= len(oldest)

    def forget(self, ordinal: int) -> None:
        """The segment's blocks have other places now."""
        for position in [position for position in self._blocks if position.ordinal == ordinal]:
            self._bytes -= len(self._blocks.pop(position)[1])

    def __contains__(self, position: Position) -> bool:
        return position in self._blocks

    def find(self, position: Position) -> tuple[Position, BlockHead, bytes] | None:
        """The block that stands there, if it is among the newest."""
        found = self._blocks.get(position)
        return None if found is None else (position, *found)
