"""Records that did not decode, as they wait, and the wish to decode them again."""

from __future__ import annotations

import datetime

import msgspec

from protocols.messages import Clock, ClockState

UNKNOWN_CLOCK = Clock(0, 0, ClockState.SYNCHRONIZED)
"""Of a record that was rejected by a version that did not keep it: its received time stands as it came."""


class RejectRow(msgspec.Struct, frozen=True):
    seq: int
    source_id: int
    epoch: int
    record_seq: int
    network_id: str
    alias_key: str
    alias: str
    topic: str
    code: str
    detail: str
    received_time: int
    payload: bytes
    codec: str = ""
    """The listener's hint."""
    clock: Clock = UNKNOWN_CLOCK
    late: bool = False
    """It came by the lane `backfill`."""
    metadata: bytes = b""
    """What its protocol said beside the payload."""


class RejectFilter(msgspec.Struct, frozen=True):
    """Which rejects of a project; None: any."""

    network_id: str | None = None
    code: str | None = None
    since_ms: int | None = None
    """Received then or later, Unix milliseconds."""
    until_ms: int | None = None
    """Received before."""

    def takes(self, network_id: str, code: str, received_ms: int) -> bool:
        return (
            self.network_id in (None, network_id)
            and self.code in (None, code)
            and (self.since_ms is None or received_ms >= self.since_ms)
            and (self.until_ms is None or received_ms < self.until_ms)
        )


class RejectReplay(msgspec.Struct, frozen=True):
    """A wish to decode rejects again, and how far it is done."""

    number: int
    project_id: str
    wanted: RejectFilter
    through_seq: int
    """The newest reject that it is about."""
    position: int
    """Those up to this number have had their turn."""
    total: int
    """Rejects that there were when it was asked for."""
    decoded: int = 0
    failed: int = 0
    """They do not decode still, and wait with their new reason."""
    created_at: datetime.datetime | None = None
    finished_at: datetime.datetime | None = None
