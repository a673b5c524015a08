"""Seeded worlds: random appends, accepts, failed writes, full disks, power cuts and reopenings against a model of what
was said.

What holds: everything acknowledged is read afterwards, once, or is in a gap; alarms are in none; no record number is
given twice; the accounting closes at every step; the files never pass the cap. The seed is in the test's name.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import random
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from protocols.block import HEAD_BYTES, open_block, read_head
from protocols.messages import Gap, GapKind, Priority
from sync.log.log import Entry, Log, LogError, LogFullError
from sync.log.segment import HEADER_BYTES, MAGIC, header_size
from sync.log.settings import KEY_RANGES_MAX, STATE_BYTES
from tests.sync.log.making import SEGMENT_BYTES, SMALL, accept, closes, entry, open_log, read_all
from tests.sync.log.simulated_disk import SimulatedDisk

FEW = [*range(12), 115, 887]
MANY = [pytest.param(seed, marks=pytest.mark.servers) for seed in range(12, 60)]
"""With the whole of the tests, not on each check."""
LIVES = 6
STEPS = 12

Name = tuple[int, int]
"""Run and counter of an entry's key; a run is of one priority."""


class WatchedDisk(SimulatedDisk):
    """Knows what every record number was given to."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.given: dict[tuple[int, int], bytes] = {}
        """(epoch, seq) to payload."""

    def write(self, path: Path, data: bytes, offset: int) -> None:
        if path.suffix == ".seg":
            for seq, payload in _records(data):
                assert self.given.setdefault(seq, payload) == payload, "a record number given twice"
        super().write(path, data, offset)


class World:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.disk = WatchedDisk(seed)
        evict = self.random.random() < 0.8
        retained = self.random.choice((0, 0, 2 * SEGMENT_BYTES))
        self.settings = msgspec.structs.replace(SMALL, evict=evict, retain_acked_bytes=retained)
        self.counters = [0, 0, 0]
        """Of each publisher's run."""
        self.said: set[Name] = set()
        """Keys that were acknowledged."""
        self.open: list[Entry] = []
        """Appended without an answer, or refused: to be tried again under the same key."""
        self.cloud: dict[tuple[int, int], bytes] = {}
        """(epoch, seq) to payload, of all blocks that were ever read."""
        self.lost: set[tuple[int, int]] = set()
        """What the cloud said that it does not have any more."""
        self.restored: set[tuple[int, int]] = set()
        """All that it ever said so of."""
        self.gaps: set[tuple[int, int]] = set()
        """Records that were told to be lost."""

    async def live(self) -> None:
        """One opening of the log, to its close or crash."""
        if self.random.random() < 0.8:
            self.disk.cut_power_after(self.random.randrange(60))
        self.disk.capacity_bytes = STATE_BYTES + self.random.choice((5, 6, 7, 99)) * SEGMENT_BYTES
        # Every OSError that comes out says that power is off.
        with contextlib.suppress(OSError):
            log = await open_log(self.disk, settings=self.settings)
            try:
                for _ in range(STEPS):
                    await self.step(log)
                    self.check(log)
            finally:
                await log.close()
        self.disk.restart()

    def check(self, log: Log) -> None:
        assert closes(log)
        assert self.disk.used_bytes <= SMALL.max_bytes
        assert log.accounting().used_bytes <= SMALL.max_bytes
        damaged = [seq for gap in log.gaps(1000) if gap.kind is GapKind.DAMAGED for seq in _named(gap)]
        assert self.restored.issuperset(damaged), "only what the cloud wants again may be found missing"
        assert log.accounting().damaged <= len(self.restored)

    async def step(self, log: Log) -> None:
        if self.random.random() < 0.1:
            self.disk.fail_writes(errno.EIO, to=self.random.choice(("segment", "state", "reserve")))
        appends = [self.append(log) for _ in range(self.random.randrange(5))]
        work = self.random.choice((self.send, self.send_stretches, self.tell, self.idle, self.idle))
        await asyncio.gather(*appends, work(log))
        if self.random.random() < 0.05:
            self.lose(log)

    async def append(self, log: Log) -> None:
        entries = [self.new_entry() for _ in range(self.random.randrange(1, 4))]
        again = self.to_retry()
        if again and self.random.random() < 0.5:
            entries.append(self.random.choice(again))
        try:
            await log.append(entries)
        except LogError as error:
            if not isinstance(error, LogFullError) or self.random.random() < 0.5:
                self.open.extend(entries)
        else:
            self.said.update((each.key.run, each.key.counter) for each in entries)

    def new_entry(self) -> Entry:
        run = self.random.choice((0, 0, 0, 1, 2))
        self.counters[run] += 1
        sizes = (10, 300) if run == Priority.ALARM else (10, 300, 3000, 12000)
        noise = self.random.randbytes(self.random.choice(sizes))
        rows = self.random.randrange(1, 5)
        return entry(self.counters[run], run=run, rows=rows, noise=noise, priority=Priority(run))

    def to_retry(self) -> list[Entry]:
        """Publishers come again soon: the log knows only so many holes in what a run had."""
        return [each for each in self.open if each.key.counter > self.counters[each.key.run] - KEY_RANGES_MAX]

    async def idle(self, log: Log) -> None:
        """No connection."""

    async def send(self, log: Log) -> None:
        """The sender's work: reads what is not accepted; some answers are lost."""
        reader = log.reader("sender")
        blocks = await read_all(reader)
        reader.close()
        self.receive(blocks)
        accept(log, [block for block in blocks if self.random.random() < 0.6])

    async def send_stretches(self, log: Log) -> None:
        """The same, piece by piece from the newest on, while appends and evictions go on beside it."""
        least = self.random.choice((Priority.TELEMETRY, Priority.EVENT))
        for stretch in log.stretches():
            reader = log.stretch_reader(stretch, least=least)
            while blocks := await reader.next(self.random.randrange(1, 4), 1 << 16):
                heads = [read_head(block) for block in blocks]
                for head in heads:
                    log.sending(head.epoch, head.first_seq, head.end_seq)
                for _ in range(self.random.randrange(4)):
                    await asyncio.sleep(0)
                for head in heads:
                    places = {log.where(head.epoch, seq) for seq in range(head.first_seq, head.end_seq)}
                    assert "evicted" not in places, "what is in flight is not evicted"
                self.receive(blocks)
                accept(log, [block for block in blocks if self.random.random() < 0.6])
            reader.close()
        log.nothing_in_flight()

    async def tell(self, log: Log) -> None:
        """The gaps' way to the cloud; some answers are lost."""
        if self.random.random() < 0.3:
            log.tell_gaps_again()
        gaps = log.gaps(self.random.randrange(1, 9))
        for gap in gaps:
            self.gaps |= _named(gap)
        if self.random.random() < 0.7:
            has = [span for gap in gaps for span in self.spans_had(gap)]
            log.gaps_kept(gaps, has)

    def spans_had(self, gap: Gap) -> Iterator[tuple[int, int, int]]:
        for epoch, seq in _named(gap):
            if (epoch, seq) in self.cloud and (epoch, seq) not in self.lost:
                yield epoch, seq, seq + 1

    def lose(self, log: Log) -> None:
        """The cloud was restored from a backup, and lacks some of what it had."""
        for epoch, first, end in log.holdings():
            if self.random.random() < 0.3:
                self.lost |= {(epoch, seq) for seq in range(first, end)}
                self.restored |= self.lost
                log.resend(epoch, first, end)

    def receive(self, blocks: list[bytes]) -> None:
        for block in blocks:
            for place, payload in _records(block):
                assert self.cloud.setdefault(place, payload) == payload, "a record number given twice"
                self.lost.discard(place)

    async def end(self) -> None:
        """All that waits is sent and told, and what was refused is appended."""
        self.disk.capacity_bytes = None
        log = await open_log(self.disk, settings=self.settings)
        retried = iter(self.to_retry())
        while True:
            # A full log takes entries again once what it holds is accepted.
            reader = log.reader("sender")
            blocks = await read_all(reader)
            reader.close()
            self.receive(blocks)
            accept(log, blocks)
            assert log.accounting().pending == 0
            batch = [each for each, _ in zip(retried, range(3), strict=False)]
            if not batch:
                break
            while True:
                try:
                    await log.append(batch)
                    break
                except LogFullError:
                    await asyncio.sleep(0)  # trimming is on its way
            self.said.update((each.key.run, each.key.counter) for each in batch)
        while gaps := log.gaps(100):
            for gap in gaps:
                self.gaps |= _named(gap)
            log.gaps_kept(gaps)
        assert log.accounting().gaps_untold == 0
        self.check(log)
        await log.close()


def _records(data: bytes) -> Iterator[tuple[tuple[int, int], bytes]]:
    """(epoch, seq) and payload of each record in what is written or read: blocks, behind a header if there is one."""
    at = header_size(data[:HEADER_BYTES]) if data[:4] == MAGIC else 0
    while len(data) - at >= HEAD_BYTES:
        head, batches = open_block(data[at : at + read_head(data, at).size])
        at += head.size
        rows = [payload for batch in batches for payload in batch.payloads]
        for seq, payload in enumerate(rows, head.first_seq):
            yield (head.epoch, seq), payload


def _named(gap: Gap) -> set[tuple[int, int]]:
    return {(gap.epoch, seq) for seq in range(gap.first_seq, gap.end_seq)}


def _name(payload: bytes) -> tuple[int, int, int]:
    """Run, counter and row."""
    run, counter, row = map(int, payload.split(b" ")[0].split(b"/"))
    return run, counter, row


@pytest.fixture
async def interleaving(monkeypatch: pytest.MonkeyPatch) -> random.Random:
    """Instead of threads, whose order no seed decides: each call runs after a random number of the loop's turns, those
    of one thread one after the other."""
    order = random.Random()
    busy: dict[Executor | None, asyncio.Lock] = {}

    async def run(executor: Executor | None, call: Callable[[], Any]) -> Any:
        async with busy.setdefault(executor, asyncio.Lock()):
            for _ in range(order.randrange(8)):
                await asyncio.sleep(0)
            return call()

    def run_in_executor(executor: Executor | None, call: Callable[[], Any]) -> asyncio.Future[Any]:
        return asyncio.ensure_future(run(executor, call))

    monkeypatch.setattr(asyncio.get_running_loop(), "run_in_executor", run_in_executor)
    return order


@pytest.mark.parametrize("seed", [*FEW, *MANY])
async def test_nothing_acknowledged_is_lost_or_doubled(seed: int, interleaving: random.Random) -> None:
    world = World(seed)
    interleaving.seed(seed)
    for _ in range(LIVES):
        await world.live()
    await world.end()

    arrived = [_name(payload) for payload in world.cloud.values()]
    assert len(set(arrived)) == len(arrived), "a batch was recorded twice"
    gone = {_name(world.disk.given[place]) for place in world.gaps}
    assert world.said <= {name[:2] for name in (*arrived, *gone)}, "an acknowledged batch is gone"
    assert Priority.ALARM not in {run for run, _, _ in gone - set(arrived)}, "an alarm was evicted"
    assert world.disk.largest_bytes <= SMALL.max_bytes
