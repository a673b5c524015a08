"""What a hop could not do for good, as it waits."""

from __future__ import annotations

import datetime

import msgspec


class DeadLetter(msgspec.Struct, frozen=True):
    seq: int
    hop: str
    topic: str
    detail: str
    source_id: int | None
    epoch: int | None
    """Both None: it is older than these being noted."""
    records: tuple[tuple[int, int], ...]
    """First and end of the records that it is about."""
    created_at: datetime.datetime
    size_bytes: int
    data: bytes = b""
    """As it came; empty in lists."""
