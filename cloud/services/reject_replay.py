"""Decodes again what was rejected, once its codec is mended, from the bytes as they came.

A reject becomes what its first decode would have given: messages with the ids of its record, dated as then. They travel
to the writer as records of the inbox's epoch, since the hops behind the processor are done with the record itself. All
of it is one transaction: the rejects are gone, their fates counted, and what goes to the writer kept (outputs.py). So a
replay that is repeated or cut off doubles nothing. What does not decode still stays, with its new reason.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import Final

import msgspec

from cloud.db.database import DatabaseError
from cloud.model.claim import INBOX_EPOCH, rows_by_epoch
from cloud.model.output import Output
from cloud.model.rejected import RejectReplay, RejectRow
from cloud.services.outputs import Outputs
from cloud.services.replay import HOP
from cloud.services.resolving import Records, Registries, anchors_of, by_fate, resolve
from cloud.services.store import Store, Transaction
from cloud.topics import WRITER
from protocols.batch import BatchKey, RecordBatch
from protocols.messages import Lane, Origin
from protocols.shipment import LATE, MessageBatch, Run, carriers_of, encode_messages, pick, restrict
from sync.bus.contract import Bus, BusError
from tidegate.logs import get_logger
from tidegate.pause import pause

ROWS_MAX: Final = 200
"""Records in one transaction: some 20 ms of work, after which the progress is there to be seen."""
BYTES_MAX: Final = 1024 * 1024
"""And their payloads together, but for one that is larger."""
LOOK_EVERY_S: Final = 1.0
"""How long a wish is not seen at most. One look is one query that finds nothing by its index."""

_log = get_logger("reject_replay")


class RejectReplays:
    """The replays that people ask for, one transaction after the other; several processes share them."""

    def __init__(self, registries: Registries, bus: Bus, store: Store) -> None:
        self._registries = registries
        self._outputs = Outputs(HOP, (WRITER,), bus, store)

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set. What the bus does not take is published by the sweep of the inbox's outputs."""
        while not stop.is_set():
            try:
                while not stop.is_set() and await self.step():
                    pass
            except (BusError, DatabaseError) as error:
                _log.warning("replay of rejects goes on later", reason=str(error), again_in_s=LOOK_EVERY_S)
            except Exception as error:  # noqa: BLE001  # whatever is wrong with one reject, the cloud's other parts go on
                _log.error("replay of rejects failed", again_in_s=LOOK_EVERY_S, exc_info=error)
            await pause(stop, LOOK_EVERY_S)

    async def step(self) -> bool:
        """Decodes the next records of the oldest replay; False: there is none. Raises BusError, DatabaseError."""
        found = False

        async def work(tx: Transaction) -> list[Output]:
            nonlocal found
            replay = await tx.next_reject_replay()
            found = replay is not None
            return [] if replay is None else await self._go_on(tx, replay)

        await self._outputs.run(Lane.BACKFILL, work)
        return found

    async def _go_on(self, tx: Transaction, replay: RejectReplay) -> list[Output]:
        rows = await tx.rejects_of(replay, ROWS_MAX, BYTES_MAX)
        if not rows:
            await tx.advance_reject_replay(replay, is_finished=True)
            return []
        newest = await tx.newest_revision(replay.project_id, held=True)
        registry = await self._registries.refresh(replay.project_id, newest)
        in_order = sorted(rows, key=lambda row: (row.source_id, row.seq))
        records = [_record(row) for row in in_order]
        messages = resolve(registry, records, await anchors_of(tx, records))
        again = {reject.record: reject for reject in messages.rejects}
        failed = [(in_order[place].seq, reject.code, reject.detail) for place, reject in again.items()]
        decoded = [row for place, row in enumerate(in_order) if place not in again]
        if failed:
            await tx.renew_rejects(failed)
        outputs = []
        if decoded:
            await tx.remove_rejects([row.seq for row in decoded])
            kept = [[] if place in again else [run] for place, (run, _) in enumerate(records)]
            outputs = await _settle(tx, decoded, _dated(restrict(messages, kept), decoded))
        moved = msgspec.structs.replace(
            replay,
            position=rows[-1].seq,
            decoded=replay.decoded + len(decoded),
            failed=replay.failed + len(failed),
        )
        await tx.advance_reject_replay(moved, is_finished=False)
        return outputs


async def _settle(tx: Transaction, decoded: Sequence[RejectRow], messages: MessageBatch) -> list[Output]:
    """Counts the fates of records that have decoded, keeps unknown devices' messages, and gives what goes on.
    `decoded`: the records of `messages`, in order of their sources."""
    writer, unknown, stopped = by_fate(messages)
    if unknown:
        await tx.add_unresolved(messages, unknown)
    epochs = [Run(*name, 0, 0) for name in sorted({(row.source_id, row.epoch) for row in decoded})]
    inboxes = [Run(source_id, INBOX_EPOCH, 0, 0) for source_id in sorted({row.source_id for row in decoded})]
    held = await tx.claim(HOP, [*inboxes, *epochs])
    numbered = []
    for source_id, mine in itertools.groupby(decoded, lambda row: row.source_id):
        numbered.append(Run(source_id, INBOX_EPOCH, held.done[source_id, INBOX_EPOCH].end, len(list(mine))))
    claimed = await tx.claim(HOP, [*numbered, *epochs])
    for row in decoded:
        claimed.count(row.source_id, row.epoch, "rejected_records", -1)
        claimed.count(row.source_id, row.epoch, "decoded_records", 1)
    for fate, places in (("decoded", range(len(messages))), ("unresolved", unknown), ("stopped", stopped)):
        for name, number in rows_by_epoch(messages, places).items():
            claimed.count(*name, fate, number)
    await tx.settle(claimed)
    named = msgspec.structs.replace(messages, carriers=carriers_of(messages), runs=numbered, rejects=[])
    return [Output(WRITER, encode_messages(pick(named, writer)))]


def _record(row: RejectRow) -> Records:
    """The record as the gateway gave it, alone."""
    origin = Origin(row.network_id, row.alias_key, row.alias, row.topic, row.codec, "")
    metadata = [row.metadata] if row.metadata else []
    batch = RecordBatch(BatchKey(0, 0), row.clock, row.received_time, [origin], [0], [0], [row.payload], metadata)
    return Run(row.source_id, row.epoch, row.record_seq, 1), [batch]


def _dated(messages: MessageBatch, decoded: Sequence[RejectRow]) -> MessageBatch:
    """Flagged as late where the record was."""
    flags = [
        flags | LATE if decoded[place].late else flags
        for flags, place in zip(messages.flags, messages.record, strict=True)
    ]
    return msgspec.structs.replace(messages, flags=flags)
