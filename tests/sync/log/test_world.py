"""Seeded worlds: random appends, accepts, failed writes, power cuts and reopenings against a model of what was said.

What holds: everything acknowledged is read afterwards, once; no record number is given twice; the accounting closes;
the files never pass the cap. The seed is in the test's name.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import random
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

import pytest

from protocols.block import open_block
from sync.log.log import Entry, Log, LogError, LogFullError
from tests.sync.log.making import SMALL, accept, closes, entry, open_log, read_all
from tests.sync.log.simulated_disk import SimulatedDisk

SEEDS = range(40)
LIVES = 6
STEPS = 12


class World:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.disk = SimulatedDisk(seed)
        self.counters = [0, 0, 0]
        """Of each publisher's run."""
        self.said: set[tuple[int, int]] = set()
        """Keys that were acknowledged."""
        self.open: list[Entry] = []
        """Appended without an answer, or refused: to be tried again under the same key."""
        self.cloud: dict[tuple[int, int], bytes] = {}
        """(epoch, seq) to payload, of all blocks that were ever read."""

    async def live(self) -> None:
        """One opening of the log, to its close or crash."""
        if self.random.random() < 0.8:
            self.disk.cut_power_after(self.random.randrange(60))
        # Every OSError that comes out says that power is off.
        with contextlib.suppress(OSError):
            log = await open_log(self.disk)
            try:
                for _ in range(STEPS):
                    await self.step(log)
                    assert closes(log)
                    assert log.accounting().damaged == 0
            finally:
                await log.close()
        self.disk.restart()

    async def step(self, log: Log) -> None:
        if self.random.random() < 0.1:
            self.disk.fail_writes(errno.EIO, to=self.random.choice(("segment", "state")))
        appends = [self.append(log) for _ in range(self.random.randrange(4))]
        await asyncio.gather(*appends, self.send(log))

    async def append(self, log: Log) -> None:
        entries = [self.new_entry() for _ in range(self.random.randrange(1, 4))]
        if self.open and self.random.random() < 0.5:
            entries.append(self.random.choice(self.open))
        try:
            await log.append(entries)
        except LogError as error:
            if not isinstance(error, LogFullError) or self.random.random() < 0.5:
                self.open.extend(entries)
        else:
            self.said.update((each.key.run, each.key.counter) for each in entries)

    def new_entry(self) -> Entry:
        run = self.random.randrange(3)
        self.counters[run] += 1
        noise = self.random.randbytes(self.random.choice((10, 300, 3000, 12000)))
        return entry(self.counters[run], run=run, rows=self.random.randrange(1, 5), noise=noise)

    async def send(self, log: Log) -> None:
        """The sender's work: reads what is not accepted; some answers are lost."""
        reader = log.reader("sender")
        blocks = await read_all(reader)
        reader.close()
        self.receive(blocks)
        accept(log, [block for block in blocks if self.random.random() < 0.6])

    def receive(self, blocks: list[bytes]) -> None:
        for block in blocks:
            head, batches = open_block(block)
            rows = [payload for batch in batches for payload in batch.payloads]
            for seq, payload in enumerate(rows, head.first_seq):
                assert self.cloud.setdefault((head.epoch, seq), payload) == payload, "a record number given twice"


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


@pytest.mark.parametrize("seed", SEEDS)
async def test_nothing_acknowledged_is_lost_or_doubled(seed: int, interleaving: random.Random) -> None:
    world = World(seed)
    interleaving.seed(seed)
    for _ in range(LIVES):
        await world.live()

    log = await open_log(world.disk)
    retried = iter(world.open)
    while True:
        # A full log takes entries again once what it holds is accepted.
        reader = log.reader("sender")
        blocks = await read_all(reader)
        reader.close()
        world.receive(blocks)
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
        world.said.update((each.key.run, each.key.counter) for each in batch)
    assert closes(log)
    await log.close()

    arrived = [tuple(map(int, payload.split(b" ")[0].split(b"/"))) for payload in world.cloud.values()]
    assert len(set(arrived)) == len(arrived), "a batch was recorded twice"
    assert world.said <= {(run, counter) for run, counter, _ in arrived}, "an acknowledged batch is gone"
    assert world.disk.largest_bytes <= SMALL.max_bytes
