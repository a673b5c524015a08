"""What all listeners share: rows of many devices become batches on the bus topic `inbound`, and answers go back.

While one batch is being recorded, the next one fills: under load batches grow by themselves, and a lone row leaves at
the end of the event loop's iteration. A batch's waiters hear of it when `publish` has returned, which means: on disk.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from edge.listeners.clock import ClockSource
from edge.listeners.filling import Filling, Pledger, Waiter
from protocols.batch import BatchKey
from protocols.limits import BATCH_BYTES_MAX, BATCH_RECORDS_MAX
from protocols.messages import Clock, Origin
from sync.bus.contract import Bus, BusError, BusFullError, BusRefusedError
from sync.log.linger import Linger
from tidegate.logs import get_logger

TOPIC: Final = "inbound"

WAITING_BYTES_MAX: Final = 8 * BATCH_BYTES_MAX
"""Rows without an answer, all listeners together. More than a disk that syncs in 4 ms needs at any load; beyond it,
listeners stop reading, and the devices' own TCP windows hold them back."""

WAITING_RECORDS_MAX: Final = 8 * BATCH_RECORDS_MAX
"""The same for small rows, each of which takes about 200 bytes of memory whatever its payload."""

RESUME_BELOW: Final = 0.5
"""Reading goes on when this part of the bounds is left: pausing and resuming has a price for each connection."""

CLOCK_STEP_MS: Final = 50
"""A wall clock that moved more than this against the boot clock starts a new batch, which carries the new offset."""

ATTEMPT_S: Final = 5.0
"""One publish: a sync takes milliseconds, a second on a disk in trouble; longer means that the answer is lost."""

DEADLINE_S: Final = 20.0
"""All attempts at one batch: shorter than most devices' keep-alive, so that they are told rather than time out."""

RETRY_FIRST_S: Final = 0.02
RETRY_FULL_S: Final = 0.5
"""The first wait when the bus says that it is full, which passes more slowly than a lost answer."""
RETRY_MAX_S: Final = 2.0

LINGER_TICK_S: Final = 0.001
LINGER_TICKS: Final = 2
"""A batch waits this long for more, where that has paid: PUBACKs stay well within 10 ms."""

_log = get_logger("edge.collector")


class Readers(Protocol):
    """A listener, as far as its sockets' reading goes."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class CollectorCounters(msgspec.Struct):
    """Since start."""

    recorded: int = 0
    """Records on disk."""
    batches: int = 0
    retries: int = 0
    refused: dict[str, int] = {}
    """Records not taken, by reason."""


class Collector:
    """One for the gateway. Publishes under keys of its own run; one batch is in flight at a time, so that answers keep
    the order in which messages came [MQTT-4.6.0-2]."""

    def __init__(self, bus: Bus, clock: ClockSource, *, run: int) -> None:
        """`run`: random, 63 bits, new for each start."""
        self.counters = CollectorCounters()
        self.clock = clock
        self.paused = False
        self.waiting_records = 0
        self._bus = bus
        self._key_run = run
        self._key_counter = 0
        self._filling: Filling | None = None
        self._full: deque[Filling] = deque()  # bounded by what may wait: a batch here is nearly full, or a clock step's
        self._set_bytes = 0  # of the batches that are set aside or in flight
        self._wake = asyncio.Event()
        self._drained: list[asyncio.Future[None]] = []
        self._readers: list[Readers] = []
        self._trouble = ""
        self._linger = Linger(LINGER_TICKS)

    def attach(self, readers: Readers) -> None:
        self._readers.append(readers)

    def detach(self, readers: Readers) -> None:
        self._readers.remove(readers)

    def add(
        self,
        origin: Origin,
        payloads: list[bytes],
        waiter: Waiter | None = None,
        tokens: Sequence[bytes] = (),
        *,
        metadata: bytes = b"",
        pledger: Pledger | None = None,
    ) -> None:
        """Rows that one read gave: same origin, received now, in order. Each payload is at most PAYLOAD_BYTES_MAX.

        `origin` is shared by identity: give the same object for the same device. `waiter` is told what becomes of the
        rows, and gets back `tokens`: one a row, or none where no answer is due. A listener whose senders cannot be held
        back (UDP) looks at `paused` first, and drops what comes meanwhile (`refuse`).
        """
        wall_ms = self.clock.wall_ms()
        offset_ms = wall_ms - self.clock.boot_ms()
        filling = self._filling
        if filling is None or not -CLOCK_STEP_MS <= offset_ms - filling.clock.offset_ms <= CLOCK_STEP_MS:
            filling = self._next_filling(wall_ms, offset_ms)
        taken = filling.add(origin, payloads, wall_ms, waiter, tokens, metadata)
        while taken < len(payloads):
            if pledger is not None:
                filling.pledges.add(pledger)
            filling = self._next_filling(wall_ms, offset_ms)
            taken += filling.add(origin, payloads[taken:], wall_ms, waiter, tokens[taken:], metadata)
        if pledger is not None:
            filling.pledges.add(pledger)
        self.waiting_records += len(payloads)
        self._wake.set()
        if not self.paused and (
            self._set_bytes + filling.bytes > WAITING_BYTES_MAX or self.waiting_records > WAITING_RECORDS_MAX
        ):
            self.paused = True
            for readers in self._readers:
                readers.pause()

    def refuse(self, code: str, rows: int) -> None:
        """Counts rows that a listener dropped, as their senders cannot be held back while it is `paused`."""
        self.counters.refused[code] = self.counters.refused.get(code, 0) + rows

    async def run(self) -> None:
        """Publishes until it is cancelled; what waits then is refused."""
        try:
            while True:
                if not self._full and self._filling is None:
                    self._wake.clear()
                    await self._wake.wait()
                await self._wait_for_more()
                filling = self._take()
                if filling is None:
                    continue
                try:
                    code = await self._publish(filling)
                except asyncio.CancelledError:
                    self._settle(filling, "closing")
                    raise
                self._settle(filling, code)
        finally:
            while (filling := self._take()) is not None:
                self._settle(filling, "closing")

    async def _wait_for_more(self) -> None:
        """While it pays: each batch has a price of its own (bus, sync, wake-ups), whatever it holds."""
        for tick in range(self._linger.ticks):
            if self._full or not self._linger.pays(tick):
                return
            before = self.waiting_records
            await asyncio.sleep(LINGER_TICK_S)
            self._linger.learn(tick, before, self.waiting_records - before)

    async def drained(self) -> None:
        """Waits until every row that was added has its answer."""
        if self.waiting_records:
            future = asyncio.get_running_loop().create_future()
            self._drained.append(future)
            await future

    def _next_filling(self, wall_ms: int, offset_ms: int) -> Filling:
        """Sets the current batch aside to be published, and begins another."""
        if self._filling is not None:
            self._full.append(self._filling)
            self._set_bytes += self._filling.bytes
        clock = Clock(self.clock.boot, offset_ms, self.clock.state())
        self._filling = Filling(clock, wall_ms)
        return self._filling

    def _take(self) -> Filling | None:
        if self._full:
            return self._full.popleft()
        filling, self._filling = self._filling, None
        if filling is not None:
            self._set_bytes += filling.bytes
        return filling

    async def _publish(self, filling: Filling) -> str:
        """The reason why not all of the rows are recorded; empty: they are."""
        parts = filling.encode(self._next_key)
        if filling.pledges:
            keys = {part.priority: part.key for part in parts}
            owed = filling.owed
            for flush in {each.pledge(owed[each], keys) for each in filling.pledges if each in owed}:
                if flush is not None:
                    await flush()
        if len(parts) == 1:
            return await self._publish_batch(parts[0].key, parts[0].data)
        codes = await asyncio.gather(*(self._publish_batch(part.key, part.data) for part in parts))
        return next((code for code in codes if code), "")

    def _next_key(self) -> BatchKey:
        key = BatchKey(self._key_run, self._key_counter)
        self._key_counter += 1
        return key

    async def _publish_batch(self, key: BatchKey, data: bytes) -> str:
        """The reason why the batch is not recorded; empty: it is."""
        loop = asyncio.get_running_loop()
        ends_s = loop.time() + DEADLINE_S
        wait_s = RETRY_FIRST_S
        while True:
            try:
                async with asyncio.timeout(ATTEMPT_S):
                    await self._bus.publish(TOPIC, data, key=key)
                return ""
            except BusRefusedError as error:
                return self._troubled(error.code, error.detail)
            except BusFullError as error:
                code, detail = "bus_full", str(error)
                wait_s = max(wait_s, RETRY_FULL_S)
            except BusError as error:
                code, detail = "bus", str(error)
            except TimeoutError:
                code, detail = "bus", f"no answer within {ATTEMPT_S:g} s"
            if loop.time() + wait_s > ends_s:
                return self._troubled(code, detail)
            self.counters.retries += 1
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, RETRY_MAX_S)

    def _settle(self, filling: Filling, code: str) -> None:
        """Tells the waiters, then lets reading go on."""
        counters = self.counters
        if code:
            self.refuse(code, filling.rows)
            for waiter, owed in filling.owed.items():
                waiter.refused(owed, code)
        else:
            if self._trouble:
                self._trouble = ""
                _log.info("records are taken again")
            counters.batches += 1
            counters.recorded += filling.rows
            for waiter, owed in filling.owed.items():
                waiter.recorded(owed)
        self.waiting_records -= filling.rows
        self._set_bytes -= filling.bytes
        if (
            self.paused
            and self._set_bytes <= WAITING_BYTES_MAX * RESUME_BELOW
            and self.waiting_records <= WAITING_RECORDS_MAX * RESUME_BELOW
        ):
            self.paused = False
            for readers in self._readers:
                readers.resume()
        if not self.waiting_records and self._drained:
            for future in self._drained:
                if not future.done():
                    future.set_result(None)
            self._drained.clear()

    def _troubled(self, code: str, detail: str) -> str:
        """Said once for a trouble, however many batches it meets; the counters have the rest."""
        if code != self._trouble:
            self._trouble = code
            _log.warning("records are refused", code=code, reason=detail)
        return code
