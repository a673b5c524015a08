"""What a hop gives to other topics."""

from __future__ import annotations

import msgspec

from protocols.messages import Lane


class Output(msgspec.Struct, frozen=True):
    """A batch for the next hop."""

    topic: str
    data: bytes


class Unsent(msgspec.Struct, frozen=True):
    """An output that is committed, and perhaps not published."""

    number: int
    lane: Lane
    output: Output
