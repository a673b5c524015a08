"""What goes first when there is no room: the oldest telemetry, then the oldest events; alarms never.

A segment that holds only what may go goes whole. Of one that holds more, the rest is kept in a smaller file that takes
its place (rewrite.py). The last segment, whose keys are needed, stays, and so does what is in flight.
"""

from __future__ import annotations

from protocols.messages import Priority
from sync.log.catalog import Catalog
from sync.log.rewrite import Run
from sync.log.segment import Segment
from sync.log.settings import LOST_RANGES_MAX, LOST_RANGES_SHARE
from sync.ranges import Ranges

STAGES = (Priority.EVENT, Priority.ALARM)
"""What is kept: first all but telemetry, then alarms alone."""


def victim(catalog: Catalog, *, may_rewrite: bool) -> tuple[Segment, Priority] | None:
    """The segment that is next to lose what is below a priority; None: nothing may go. `may_rewrite`: there is a file
    to rewrite one into; without it, only those that may go whole are next, or of which it is not known."""
    candidates = [segment for segment in catalog.segments_from(0)[:-1] if catalog.may_lose(segment)]
    for least in STAGES:
        for segment in candidates:
            goes = segment.classes & (1 << least) - 1
            if segment.packed < least and (goes == segment.classes or (goes and may_rewrite)):
                return segment, least
    return None


def limit_losses(runs: list[Run], settled: Ranges, evicted_ranges: int) -> None:
    """Keeps some runs that could go, the smallest ones, where all of them would leave more ranges than may be
    remembered."""
    left = max(0, LOST_RANGES_MAX - evicted_ranges) // LOST_RANGES_SHARE
    for run in sorted(runs, key=lambda run: -run.size_bytes):
        losses = 0 if run.is_kept else len(settled.missing(run.first_seq, run.end_seq))
        run.is_kept = run.is_kept or losses > left
        left -= 0 if run.is_kept else losses
