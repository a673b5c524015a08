from __future__ import annotations

import asyncio
import itertools
import random
import time
from pathlib import Path

import pytest

from edge.sender import LIVE_MS, RATE_OVER_S, Sender
from protocols.batch import BatchKey, RecordBatch, encode_records
from protocols.block import read_head
from protocols.messages import Lane, Origin, Priority
from sync.link.ports import Parcel, Room
from sync.log.log import Entry, Log, LogSettings, RealDisk
from tests.sync.link.blocks import BASE_MS, CLOCK, blocks
from tests.sync.link.platform import Cloud, Relay, client, linking, serving, until, wall_ms


class Reader:
    def __init__(self, made: list[bytes]) -> None:
        self.made = made
        self.at = 0
        self.more = asyncio.Event()
        self.errors: list[OSError] = []

    async def next(self, blocks_max: int, bytes_max: int) -> list[bytes]:
        if self.errors:
            raise self.errors.pop()
        while self.at == len(self.made):
            self.more.clear()
            await self.more.wait()
        taken = self.made[self.at : self.at + blocks_max]
        self.at += len(taken)
        return taken

    def rewind(self) -> None:
        self.at = 0
        self.more.set()


class Site:
    def __init__(self, made: list[bytes]) -> None:
        self.now_s = 50.0
        self.wall_ms = BASE_MS
        self.reader = Reader(made)
        self.accepted: list[tuple[int, int, int]] = []
        self.sender = Sender(
            self.reader,
            lambda epoch, first, end: self.accepted.append((epoch, first, end)),
            wall_ms=lambda: self.wall_ms,
            monotonic_s=lambda: self.now_s,
        )
        self.ready = asyncio.Event()

    async def take(self, blocks_max: int, bytes_max: int) -> Parcel:
        async with asyncio.timeout(5):
            if not self.ready.is_set():
                self.sender.begin(self.ready.set)
            while (parcel := self.sender.take(Room(blocks_max, bytes_max, bytes_max))) is None:
                self.ready.clear()
                await self.ready.wait()
        return parcel


async def test_blocks_pass_through_and_ranges_come_back() -> None:
    made = blocks(6, 10)
    site = Site(made)
    parcel = await site.take(4, 1 << 20)
    assert parcel.blocks == made[:4]
    site.sender.accepted(7, 0, 40)
    assert site.accepted == [(7, 0, 40)]


async def test_a_disk_that_fails_to_read_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.ahead.READ_AGAIN_S", 0.0)
    made = blocks(2)
    site = Site(made)
    site.reader.errors = [OSError("busy"), OSError("busy")]
    assert (await site.take(4, 1 << 20)).blocks == made


@pytest.mark.parametrize(("age_ms", "lane"), [(0, Lane.LIVE), (LIVE_MS, Lane.LIVE), (LIVE_MS + 1000, Lane.BACKFILL)])
async def test_what_waited_for_the_link_is_backfill(age_ms: int, lane: Lane) -> None:
    site = Site(blocks(1))
    site.wall_ms = BASE_MS + age_ms
    assert (await site.take(4, 1 << 20)).lane is lane


async def test_a_clock_that_runs_behind_makes_nothing_old() -> None:
    site = Site(blocks(1))
    site.wall_ms = 0
    assert (await site.take(4, 1 << 20)).lane is Lane.LIVE


async def test_what_is_sent_again_is_counted_and_the_sum_closes() -> None:
    made = blocks(6, 10)
    site = Site(made)
    await site.take(4, 1 << 20)
    site.sender.accepted(7, 0, 10)
    site.sender.give_back()
    figures = site.sender.figures()
    assert (figures.records_sent, figures.records_accepted, figures.records_resent) == (40, 10, 30)
    await site.take(6, 1 << 20)
    site.sender.accepted(7, 10, 60)
    figures = site.sender.figures()
    assert (figures.blocks_sent, figures.bytes_sent) == (10, sum(map(len, made[:4])) + sum(map(len, made)))
    in_flight = figures.records_sent - figures.records_accepted - figures.records_resent
    assert in_flight == 10, "the sender does not look into the log: its reader gave the first block again"


def test_the_drain_estimate_goes_by_the_rate_of_lately() -> None:
    site = Site([])
    assert site.sender.drain_s(1000) is None
    assert site.sender.drain_s(0) == 0.0
    at = 0
    for _ in range(200):
        site.now_s += 0.5
        site.sender.accepted(7, at, at + 5000)
        at += 5000
    assert site.sender.drain_s(100_000) == pytest.approx(10, rel=0.05)
    site.now_s += 10 * RATE_OVER_S
    assert site.sender.drain_s(100_000) is None, "it moves no more"


def test_the_rate_is_right_from_the_first_seconds() -> None:
    site = Site([])
    for second in range(2):
        site.now_s += 1.0
        site.sender.accepted(7, 1000 * second, 1000 * second + 1000)
    assert site.sender.figures().accepted_per_s == pytest.approx(1000, rel=0.1)


@pytest.mark.servers
async def test_a_real_log_drains_over_a_link_that_breaks_and_its_accounting_closes(tmp_path: Path) -> None:
    epochs = itertools.count(11)
    settings = LogSettings(max_bytes=64 << 20, segment_bytes=4 << 20)
    log = await Log.open(tmp_path, settings, disk=RealDisk(), wall_ms=wall_ms, new_epoch=lambda: next(epochs))
    cloud = Cloud()
    try:
        sender = Sender(log.reader("link"), log.accept, wall_ms=wall_ms, monotonic_s=time.monotonic)
        for number in range(300):
            await log.append([Entry(_batch(number), BatchKey(1, number), 40, BASE_MS, Priority.TELEMETRY)])
        async with serving(cloud.app) as port:
            relay = Relay(port)
            relay.cut_after = [800, 20_000, 40_000]
            async with relay.listening() as relay_port, linking(client(relay_port, sender)):
                await until(lambda: log.accounting().pending == 0)
        accounting = log.accounting()
        assert (accounting.logged, accounting.accepted, accounting.damaged) == (12_000, 12_000, 0)
        assert sum(read_head(block).records for block in cloud.stored.values()) == 12_000
        figures = sender.figures()
        assert figures.records_accepted == 12_000
        assert figures.records_sent == 12_000 + figures.records_resent
        assert relay.connections == 4
        assert set(cloud.lanes) == {Lane.BACKFILL}
    finally:
        await log.close()


def _batch(number: int) -> bytes:
    rng = random.Random(number)
    origin = Origin("demo", "serial", "pump-1", "up", "", "mqtt")
    payloads = [rng.randbytes(30) for _ in range(40)]
    return encode_records(RecordBatch(BatchKey(1, number), CLOCK, BASE_MS, [origin], [0] * 40, [0] * 40, payloads))
