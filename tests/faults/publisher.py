"""Fills a log fast: publishes records of devices through the gateway's bus, as a listener of one's own would, and keeps
the ledger for them."""

from __future__ import annotations

import asyncio
import base64
import random
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from firmware_sim.ledger import LedgerDevice, LedgerWriter
from protocols.batch import BatchKey, RecordBatch, encode_records
from protocols.messages import Clock, ClockState, Origin, Priority
from sync.bus.contract import BusError, BusRefusedError
from sync.bus.zeromq import ZeroMqBus

IN_FLIGHT: Final = 16
"""Batches without an answer."""
RETRY_S: Final = 0.3
"""After a refusal: until the log has room again."""
FILLING_BYTES: Final = 4 * 1024 * 1024
"""Of random text that payloads are cut from, one behind the other: it does not repeat within a block."""
RUNNING_MS: Final = 3_600_000
"""How long the boot that the records are of has lasted when the first one comes."""


class Publisher:
    """One boot of devices that all measure in turn."""

    def __init__(
        self,
        roster: Sequence[dict[str, Any]],
        ledger: Path,
        *,
        payload_bytes: int,
        batch_records: int,
        first_ms: int,
        step_ms: float,
        chance: random.Random,
        alarms: str = "",
    ) -> None:
        """The n-th message is of `first_ms` + n × `step_ms`; those of the device called `alarms` are alarms."""
        self.recorded = 0
        self.refused = 0
        self.made = 0
        self._ledger = LedgerWriter(ledger, wall_ms=lambda: time.time_ns() // 1_000_000)
        devices = [
            LedgerDevice(one["name"], one["network"], "serial", one["keyed"], chance.randrange(2**22)) for one in roster
        ]
        self._numbers = self._ledger.enroll(devices)
        self._ledger.count_boots(self._numbers)
        self._devices = devices
        self._seqs = [0] * len(devices)
        self._alarms = alarms
        self._payload_bytes = payload_bytes
        self._batch_records = batch_records
        self._first_ms = first_ms
        self._step_ms = step_ms
        self._clock = Clock(secrets.randbits(63), first_ms - RUNNING_MS, ClockState.SYNCHRONIZED)
        self._run = secrets.randbits(63)
        self._counter = 0
        self._filling = base64.b64encode(chance.randbytes(FILLING_BYTES * 3 // 4))
        self._at = 0

    async def publish(
        self, endpoint: str, messages: int, *, give_up: bool, progress: Callable[[int], None] = lambda recorded: None
    ) -> None:
        """Returns when all are recorded; or, if it is to give up on those, refused."""
        bus = ZeroMqBus.connect(endpoint)
        places = asyncio.Semaphore(IN_FLIGHT)
        try:
            async with asyncio.TaskGroup() as group:
                for device, rows in self._shares(messages):
                    await places.acquire()
                    task = group.create_task(self._publish(bus, *self._batch(device, rows), give_up=give_up))
                    task.add_done_callback(lambda _: places.release())
                    self._ledger.flush()
                    progress(self.recorded)
        finally:
            await bus.close()

    def close(self) -> None:
        self._ledger.close()

    def _shares(self, messages: int) -> Iterator[tuple[int, int]]:
        device = 0
        while messages > 0:
            yield device % len(self._devices), min(self._batch_records, messages)
            messages -= self._batch_records
            device += 1

    def _batch(self, device: int, rows: int) -> tuple[int, range, RecordBatch]:
        """Device, its seqs, and the batch but for its key."""
        known = self._devices[device]
        boot = self._ledger.boot(self._numbers[device])
        seqs = range(self._seqs[device] + 1, self._seqs[device] + rows + 1)
        self._seqs[device] += rows
        times = [self._first_ms + int((self.made + row) * self._step_ms) for row in range(rows)]
        self.made += rows
        priority = Priority.ALARM if known.name == self._alarms else Priority.TELEMETRY
        origin = Origin(known.network, known.alias_key, known.name, "", "", "faults", priority)
        payloads = [
            b'{"boot":%d,"seq":%d,"time":%d,"fill":"%s"}' % (boot, seq, at_ms, self._fill())
            for seq, at_ms in zip(seqs, times, strict=True)
        ]
        deltas = [at_ms - times[0] for at_ms in times]
        batch = RecordBatch(BatchKey(0, 0), self._clock, times[0], [origin], [0] * rows, deltas, payloads)
        return device, seqs, batch

    def _fill(self) -> bytes:
        self._at = (self._at + self._payload_bytes) % (FILLING_BYTES - self._payload_bytes)
        return self._filling[self._at : self._at + self._payload_bytes]

    async def _publish(self, bus: ZeroMqBus, device: int, seqs: range, batch: RecordBatch, *, give_up: bool) -> None:
        number, boot = self._numbers[device], self._ledger.boot(self._numbers[device])
        for seq in seqs:
            self._ledger.sent(number, boot, seq)
        refused = True
        while refused:
            self._counter += 1
            key = BatchKey(self._run, self._counter)
            refused = not await _recorded(bus, key, batch)
            if refused:
                self.refused += len(seqs)
                if give_up:
                    break
                await asyncio.sleep(RETRY_S)
        for seq in seqs:
            if refused:
                self._ledger.dropped(number, boot, seq)
            else:
                self._ledger.acknowledged(number, boot, seq)
        self.recorded += 0 if refused else len(seqs)


async def _recorded(bus: ZeroMqBus, key: BatchKey, batch: RecordBatch) -> bool:
    """False if it was refused, which is final for its key."""
    data = encode_records(
        RecordBatch(
            key, batch.clock, batch.base_ms, batch.origins, batch.origin_index, batch.received_delta_ms, batch.payloads
        )
    )
    while True:
        try:
            await bus.publish("inbound", data, key=key)
        except BusRefusedError:
            return False
        except BusError:
            await asyncio.sleep(RETRY_S)
        else:
            return True
