"""Which of the messages that are missing a gateway's gaps account for: by how many records a gap claims, and when they
were received. Pure.

A gap does not say whose records it claims; it accounts for no more than it claims, and for none from another time.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from firmware_sim.ledger import Mark
from protocols.messages import GapKind
from protocols.times import DEVICE_TIME_MIN_MS

SLACK_MS: Final = 5_000
"""A gap knows about when its records were received, a ledger about when it was told so, each by a clock of its own."""
_FOR_EVER_MS: Final = 2**62
RECORD_BYTES_MIN: Final = 8
"""A record takes no less in a log: what a tail of so many bytes can have held."""


class GapItem(msgspec.Struct, frozen=True):
    """A gap as `GET /api/v1/gaps` gives it."""

    gateway_id: str | None
    kind: GapKind
    records: int
    oldest_time: int | None
    newest_time: int | None
    """When its records were received, about, Unix ms; None: not known."""
    noticed_time: int
    """By the gateway's clock."""
    size_bytes: int

    @property
    def claims(self) -> int:
        """Messages that it can account for."""
        return self.size_bytes // RECORD_BYTES_MIN if self.kind is GapKind.TAIL else self.records


def accounted_for(missing: Mapping[Mark, int], gaps: Iterable[GapItem]) -> set[Mark]:
    """`missing`: when each was acknowledged, Unix ms. As many as can be matched, each to one gap of its time."""
    spans = sorted((*_span(gap), gap.claims) for gap in gaps if gap.claims)
    found: set[Mark] = set()
    open_until: list[list[int]] = []  # a heap of [end, how many it still claims]
    place = 0
    # In order of time, each to the gap that ends first: no other way matches more.
    for mark, at_ms in sorted(missing.items(), key=lambda item: item[1]):
        while place < len(spans) and spans[place][0] <= at_ms:
            heapq.heappush(open_until, [spans[place][1], spans[place][2]])
            place += 1
        while open_until and (open_until[0][0] < at_ms or not open_until[0][1]):
            heapq.heappop(open_until)
        if open_until:
            open_until[0][1] -= 1
            found.add(mark)
    return found


def gaps_line(gaps: Sequence[GapItem]) -> str:
    """How much is gone, and where: to be read under the accounts."""
    parts = []
    for gateway in sorted({gap.gateway_id or "" for gap in gaps}):
        counts: dict[GapKind, list[int]] = defaultdict(list)
        for gap in gaps:
            if (gap.gateway_id or "") == gateway:
                counts[gap.kind].append(gap.records)
        kinds = [
            f"{len(records):,} torn ends" if kind is GapKind.TAIL else f"{kind} {sum(records):,} in {len(records)} gaps"
            for kind, records in sorted(counts.items())
        ]
        parts.append(f"{gateway}: {', '.join(kinds)}")
    return "; ".join(parts)


def _span(gap: GapItem) -> tuple[int, int]:
    """When its records may have been received, Unix ms. A time before any clock was set says nothing."""
    oldest_ms, newest_ms = gap.oldest_time or 0, gap.newest_time or gap.noticed_time
    return (
        oldest_ms - SLACK_MS if oldest_ms >= DEVICE_TIME_MIN_MS else 0,
        newest_ms + SLACK_MS if newest_ms >= DEVICE_TIME_MIN_MS else _FOR_EVER_MS,
    )
