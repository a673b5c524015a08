"""What goes into the log."""

from __future__ import annotations

import msgspec

from protocols.batch import BatchKey
from protocols.messages import Priority


class Entry(msgspec.Struct, frozen=True):
    """One batch of records, as it was published."""

    data: bytes
    """As protocols.batch.encode_records gave it."""
    key: BatchKey
    records: int
    """Rows of the batch."""
    newest_ms: int
    """Newest received time of its records, Unix ms."""
    priority: Priority
    """Highest of its records."""
    oldest_ms: int | None = None
    """Oldest received time of its records, Unix ms; None: about the newest."""
