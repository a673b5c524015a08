"""How a gateway stands, by its own last word."""

from __future__ import annotations

import datetime

import msgspec

from sync.link.frames import Standing


class GatewayStanding(msgspec.Struct, frozen=True):
    project_id: str
    gateway_id: str
    standing: Standing | None
    """None: it has never told."""
    standing_at: datetime.datetime | None
    """When it came."""
    complete_until: int | None
    """All that it received before is in the databases, or a gap; Unix milliseconds."""

    @property
    def pending(self) -> int:
        """Records in its log that are neither here nor gaps, at least."""
        return 0 if self.standing is None else sum(span.end - span.first for span in self.standing.pending)

    @property
    def in_flight(self) -> int:
        """Of these, sent and without an answer."""
        return 0 if self.standing is None else sum(span.end - span.first for span in self.standing.in_flight)

    @property
    def backlog_age_ms(self) -> int:
        """Of the oldest pending record, by the gateway's clock."""
        return 0 if self.standing is None else max(0, self.standing.at_ms - self.standing.complete_ms)
