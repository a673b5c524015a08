"""Messages of unknown devices, as they wait in the inbox."""

from __future__ import annotations

import msgspec


class InboxRow(msgspec.Struct, frozen=True):
    seq: int
    source_id: int
    network_id: str
    alias_key: str
    alias: str
    id: bytes
    record: bytes
    """The id that it would have without a message key."""
    flags: int
    time: int | None
    received_time: int
    event_time: int
    data: bytes
    payload: bytes
    replay_seq: int | None
    """Its number in the inbox's own epoch of its source, once its device exists; None: it waits."""
    time_error_ms: int | None = None
    """By how much the event time may be off that was found by a clock anchor; None: it was not."""
