"""Credit by lag: how much gateways may have on its way, by what the services have not worked on yet.

A backlog is best kept where it is durable already, at the gateway, and not moved into the topics faster than it is
worked on. So backfill pauses as soon as the services have some seconds of it before them, and live traffic, whose only
other place is the gateway's log too, only long after, before the topics are full. Between the two marks of each, what
was said last holds, so that credit does not flutter.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from protocols.messages import Lane
from sync.bus.jetstream_streams import TopicStats
from sync.link.limits import CREDIT_BYTES

BACKFILL_CREDIT_BYTES: Final = CREDIT_BYTES // 2
"""Of backfill in flight from one gateway: room for the largest block (which a quarter does not have), and at a round
trip of half a second still 700,000 messages a second."""
BACKFILL_LAG_HIGH_BYTES: Final = 4 * 1024 * 1024
"""Backfill in one topic at which it pauses: some 350,000 messages, seconds of work."""
BACKFILL_LAG_LOW_BYTES: Final = 2 * 1024 * 1024
"""And at which it goes on: the services have enough to do until the next blocks are there."""
LIVE_LAG_HIGH_BYTES: Final = 2 * 1024**3
"""Of both lanes in one topic, at which live traffic pauses: a quarter of what a topic takes (cloud/topics.py), so that
what many gateways have in flight then still finds room."""
LIVE_LAG_LOW_BYTES: Final = 1024**3


class Credit(msgspec.Struct, frozen=True):
    """Bytes of blocks that one gateway may have in flight; 0: none for now."""

    all_bytes: int
    """Of both lanes."""
    backfill_bytes: int


FULL: Final = Credit(CREDIT_BYTES, BACKFILL_CREDIT_BYTES)


class Lag(msgspec.Struct, frozen=True):
    """Bytes in the topic that has the most of them."""

    all_bytes: int
    backfill_bytes: int


def lag(topics: Iterable[TopicStats]) -> Lag:
    """JetStream counts a topic's bytes as a whole; those of a lane are found by its share of the batches."""
    everything, backfill = [0], [0]
    for topic in topics:
        by_lane = dict.fromkeys(Lane, 0)
        for channel in topic.channels:
            by_lane[channel.lane] = max(by_lane[channel.lane], channel.waiting + channel.unanswered)
        batches = sum(by_lane.values())
        everything.append(topic.bytes)
        backfill.append(topic.bytes * by_lane[Lane.BACKFILL] // batches if batches else 0)
    return Lag(max(everything), max(backfill))


def credit(found: Lag, before: Credit) -> Credit:
    """What holds from now on, where `before` held."""
    live = _held(found.all_bytes, LIVE_LAG_LOW_BYTES, LIVE_LAG_HIGH_BYTES, before.all_bytes > 0)
    backfill = _held(found.backfill_bytes, BACKFILL_LAG_LOW_BYTES, BACKFILL_LAG_HIGH_BYTES, before.backfill_bytes > 0)
    return Credit(FULL.all_bytes if live else 0, FULL.backfill_bytes if live and backfill else 0)


def _held(lag_bytes: int, low_bytes: int, high_bytes: int, before: bool) -> bool:
    """Whether there is credit: below the low mark always, above the high one never."""
    return lag_bytes < (high_bytes if before else low_bytes)
