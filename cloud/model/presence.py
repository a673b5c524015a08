"""What is known of whether a device is there."""

from __future__ import annotations

import msgspec


class Seen(msgspec.Struct, frozen=True):
    """A gateway's word on one name, or, without an alias, on all that its listener had seen."""

    source_id: int
    network_id: str
    alias_key: str
    alias: str
    listener: str
    online: bool
    reason: str
    time: int
    """Unix milliseconds."""
    record: bytes
    """The id of the record that said it: among those of one time, the greater one counts."""
