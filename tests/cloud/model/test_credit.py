"""Credit by lag: backfill pauses first, live traffic long after, and neither flutters."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from cloud.model.credit import (
    BACKFILL_LAG_HIGH_BYTES,
    BACKFILL_LAG_LOW_BYTES,
    FULL,
    LIVE_LAG_HIGH_BYTES,
    LIVE_LAG_LOW_BYTES,
    Credit,
    Lag,
    credit,
    lag,
)
from cloud.services.credit import CreditWatch
from cloud.topics import TOPIC_BYTES_MAX
from protocols.messages import Lane
from sync.bus.contract import BusError
from sync.bus.jetstream_streams import ChannelStats, TopicStats
from sync.link.limits import CREDIT_BYTES_MIN

NO_BACKFILL = Credit(FULL.all_bytes, 0)
NONE = Credit(0, 0)


def topic(size: int, live: int = 0, backfill: int = 0, unanswered: int = 0) -> TopicStats:
    channels = [
        ChannelStats("processor", Lane.LIVE, live, 0),
        ChannelStats("processor", Lane.BACKFILL, backfill, unanswered),
    ]
    return TopicStats("t", live + backfill + unanswered, size, 2**33, channels)


@pytest.mark.parametrize(
    ("backfill_bytes", "before", "after"),
    [
        (BACKFILL_LAG_HIGH_BYTES - 1, FULL, FULL),
        (BACKFILL_LAG_HIGH_BYTES, FULL, NO_BACKFILL),
        (BACKFILL_LAG_LOW_BYTES, NO_BACKFILL, NO_BACKFILL),
        (BACKFILL_LAG_LOW_BYTES - 1, NO_BACKFILL, FULL),
    ],
)
def test_backfill_pauses_by_its_lag(backfill_bytes: int, before: Credit, after: Credit) -> None:
    assert credit(Lag(backfill_bytes, backfill_bytes), before) == after


@pytest.mark.parametrize(
    ("all_bytes", "before", "after"),
    [
        (LIVE_LAG_HIGH_BYTES - 1, FULL, FULL),
        (LIVE_LAG_HIGH_BYTES, FULL, NONE),
        (LIVE_LAG_LOW_BYTES, NONE, NONE),
        (LIVE_LAG_LOW_BYTES - 1, NONE, FULL),
    ],
)
def test_all_pauses_long_after(all_bytes: int, before: Credit, after: Credit) -> None:
    assert credit(Lag(all_bytes, 0), before) == after


def test_what_is_allowed_fits_the_largest_block_and_the_topics() -> None:
    assert FULL.backfill_bytes >= CREDIT_BYTES_MIN
    assert LIVE_LAG_HIGH_BYTES <= TOPIC_BYTES_MAX // 2


def test_lag_is_of_the_fullest_topic_and_by_lane() -> None:
    assert lag([]) == lag([topic(0)]) == Lag(0, 0)
    assert lag([topic(1000, live=10)]) == Lag(1000, 0)
    assert lag([topic(1000, live=10, backfill=20, unanswered=10)]) == Lag(1000, 750)
    assert lag([topic(100, backfill=1), topic(1000, live=9, backfill=1)]) == Lag(1000, 100)


async def test_a_change_is_told_and_an_outage_changes_nothing() -> None:
    found: list[Sequence[TopicStats] | BusError] = [
        [topic(10, backfill=1)],
        BusError("away"),
        [topic(BACKFILL_LAG_HIGH_BYTES, backfill=9)],
    ]
    stop = asyncio.Event()

    async def stats() -> Sequence[TopicStats]:
        if len(found) == 1:
            stop.set()
        now = found.pop(0)
        if isinstance(now, BusError):
            raise now
        return now

    watch = CreditWatch(stats)
    told = asyncio.ensure_future(watch.changed(FULL))
    await watch.run(stop)
    assert await told == watch.credit == NO_BACKFILL
