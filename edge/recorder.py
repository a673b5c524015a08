"""The recorder: from the topic `inbound` to the log to the acknowledgement. Recording comes before decoding."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from protocols.batch import decode_records
from protocols.errors import LimitError, WireError
from protocols.messages import Clock
from sync.bus.contract import Bus, Delivery
from sync.log.log import Entry, EntryTooLargeError, Log, LogFailedError, LogFullError
from tidegate.logs import get_logger

TOPIC: Final = "inbound"
CHANNEL: Final = "recorder"
BATCHES_MAX: Final = 256
"""Batches taken at once: the log groups them into one sync."""
BYTES_MAX: Final = 4 * 1024 * 1024
RETRY_S: Final = 0.5
"""After the disk failed, a batch comes again under its key: soon enough for its publisher, who waits some seconds."""
FULL: Final = "log-full"
RECEIVED_MS_MAX: Final = 253_402_300_799_999
"""The year 9999, where dates in most languages end."""
KEY_MAX: Final = 2**63 - 1
"""Of both numbers of a batch's key, and of a boot: what the log's ranges and every database can hold."""

_log = get_logger("edge.recorder")


class RecorderCounts(msgspec.Struct):
    """Since the start."""

    batches: int = 0
    records: int = 0
    retries: int = 0
    """Batches that were given back because the disk failed."""
    refused: dict[str, int] = {}
    """Records not taken, by reason; a batch that is malformed counts as one."""


class Recorder:
    """The only reader that counts on `inbound`: a batch is acknowledged once the log has synced it."""

    def __init__(self, bus: Bus, log: Log, true_received_ms: Callable[[Clock, int], int] | None = None) -> None:
        """`true_received_ms(clock, received_ms)`: true time of what a clock stamped, as far as it is known by now. The
        log's ages go by it, so that no clock that is off makes what is new look old; records stay as they came."""
        self.counts = RecorderCounts()
        self.taken = 0
        """Batches that it was given."""
        self.answered = 0
        """Of them, those that have an answer, whatever it was."""
        self._trouble = ""
        """What was said of it last."""
        self._was_at_cap = False
        """The last refusal was for want of room below the cap, not on the disk."""
        self._refused_bytes = 0
        """Of the smallest append that found no room: a smaller one may find some, and says nothing for the others."""
        self._bus = bus
        self._durable = log
        self._true_received_ms = true_received_ms or (lambda _, received_ms: received_ms)

    @property
    def trouble(self) -> str:
        """Why the log does not take what it is given; empty: it does. A log that was at its cap takes again as soon as
        it has let go of something, whether or not anything comes."""
        return "" if self._was_at_cap and self._durable.has_room else self._trouble

    async def run(self) -> None:
        """Until cancelled; then publishers that have no answer publish again, and the log knows their keys. Appends
        overlap, as many as the reader's window holds: the log puts what comes while it syncs into its next group."""
        reader = await self._bus.subscribe(TOPIC, CHANNEL)
        try:
            async with asyncio.TaskGroup() as appends:
                while True:
                    deliveries = await reader.fetch(BATCHES_MAX, BYTES_MAX)
                    self.taken += len(deliveries)
                    appends.create_task(self._answer(deliveries))
        finally:
            await reader.close()

    async def _answer(self, deliveries: Sequence[Delivery]) -> None:
        await self._record(deliveries)
        self.answered += len(deliveries)

    async def _record(self, deliveries: Sequence[Delivery]) -> None:
        good: list[tuple[Delivery, Entry]] = []
        for delivery in deliveries:
            try:
                good.append((delivery, self._entry(delivery.data)))
            except WireError as error:
                self._count_refused(error.code, 1)
                _log.warning("batch refused", code=error.code, reason=error.detail)
                await delivery.refuse(error.code, error.detail)
        if not good:
            return
        try:
            await self._durable.append([entry for _, entry in good])
        except (LogFullError, EntryTooLargeError) as error:
            code = FULL if isinstance(error, LogFullError) else "limit"
            size = _size(good)
            self._refused_bytes = min(self._refused_bytes, size) if self._trouble else size
            self._was_at_cap = code == FULL and not self._durable.has_room
            self._note(code, str(error))
            self._count_refused(code, sum(entry.records for _, entry in good))
            for delivery, _ in good:
                await delivery.refuse(code, str(error))
        except LogFailedError as error:
            self._was_at_cap = False
            self._note("log-failed", str(error))
            self.counts.retries += len(good)
            for delivery, _ in good:
                await delivery.nak(RETRY_S)
        else:
            if self._trouble and (_size(good) >= self._refused_bytes or self._durable.has_room):
                self._note("", "")
            self.counts.batches += len(good)
            self.counts.records += sum(entry.records for _, entry in good)
            for delivery, _ in good:
                await delivery.ack()

    def _count_refused(self, code: str, records: int) -> None:
        refused = self.counts.refused
        refused[code] = refused.get(code, 0) + records

    def _note(self, code: str, detail: str) -> None:
        """Said once for a trouble, however many batches it meets."""
        if code != self._trouble.partition(":")[0]:
            if code:
                _log.error("the log takes nothing", code=code, reason=detail)
            else:
                _log.info("the log takes records again")
        self._trouble = f"{code}: {detail}" if code else ""

    def _entry(self, data: bytes) -> Entry:
        """Raises a WireError for what must not get into the log: any process of this machine may publish."""
        batch = decode_records(data)
        oldest_ms = batch.base_ms + min(batch.received_delta_ms)
        newest_ms = batch.base_ms + max(batch.received_delta_ms)
        if oldest_ms < 0 or newest_ms > RECEIVED_MS_MAX:
            raise LimitError(f"received times from {oldest_ms} to {newest_ms} ms; allowed are 0 to {RECEIVED_MS_MAX}")
        if not (0 <= batch.key.run <= KEY_MAX and 0 <= batch.key.counter <= KEY_MAX):
            raise LimitError(f"key ({batch.key.run}, {batch.key.counter}); both are 0 to {KEY_MAX}")
        if not (0 <= batch.clock.boot <= KEY_MAX and abs(batch.clock.offset_ms) <= RECEIVED_MS_MAX):
            raise LimitError(f"clock of boot {batch.clock.boot}, {batch.clock.offset_ms} ms; no clock is like that")
        return Entry(
            data=data,
            key=batch.key,
            records=len(batch),
            newest_ms=self._true_ms(batch.clock, newest_ms),
            priority=max(origin.priority for origin in batch.origins),
            oldest_ms=self._true_ms(batch.clock, oldest_ms),
        )

    def _true_ms(self, clock: Clock, received_ms: int) -> int:
        return min(max(self._true_received_ms(clock, received_ms), 0), RECEIVED_MS_MAX)


def _size(good: Sequence[tuple[Delivery, Entry]]) -> int:
    """Bytes of the batches."""
    return sum(len(entry.data) for _, entry in good)
