"""Replays the inbox: messages whose device exists by now travel to the writer, numbered so that nothing doubles."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from cloud.db.database import DatabaseError
from cloud.model.claim import INBOX_EPOCH
from cloud.model.output import Output
from cloud.model.route import next_topic
from cloud.model.unresolved import InboxRow
from cloud.services.outputs import Outputs
from cloud.services.resolving import Registries, fit
from cloud.services.store import Store, Transaction
from cloud.topics import ROUTABLE, WRITER
from protocols.messages import Lane
from protocols.shipment import MessageBatch, Run, encode_messages
from sync.bus.contract import Bus, BusError
from sync.registry import Registry
from tidegate.logs import get_logger

ROWS_MAX: Final = 5000
"""Messages in one transaction."""
SWEEP_EVERY_S: Final = 30.0
"""A safety net: each change of the registry starts a sweep at once."""

HOP: Final = "inbox"

_log = get_logger("replay")


class InboxReplay:
    def __init__(self, registries: Registries, bus: Bus, store: Store) -> None:
        self._registries = registries
        self._store = store
        self._outputs = Outputs(HOP, (WRITER,), bus, store)
        self._wanted = asyncio.Event()
        self.replayed = 0
        self._moved = 0

    def want(self, project_id: str) -> None:
        """The registry changed: devices that messages waited for may exist."""
        self._wanted.set()

    async def run(self, stop: asyncio.Event) -> None:
        self._wanted.set()
        stopped = asyncio.ensure_future(stop.wait())
        sweeping = asyncio.ensure_future(self._outputs.sweep_forever(stop))
        try:
            while not stop.is_set():
                wanted = asyncio.ensure_future(self._wanted.wait())
                await asyncio.wait((wanted, stopped), timeout=SWEEP_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
                wanted.cancel()
                self._wanted.clear()
                try:
                    while not stop.is_set() and await self.sweep():
                        pass
                except (BusError, DatabaseError) as error:
                    _log.warning("sweep will be repeated", reason=str(error), again_in_s=SWEEP_EVERY_S)
        finally:
            stopped.cancel()
            sweeping.cancel()

    async def sweep(self) -> int:
        """One round: number what can be replayed, then send what is numbered. Returns how many messages moved."""
        numbered = await self._store.run(lambda tx: _number(tx, ROWS_MAX))
        self._moved = 0
        await self._outputs.run(Lane.BACKFILL, self._send)
        self.replayed += self._moved
        return numbered + self._moved

    async def _send(self, tx: Transaction) -> list[Output]:
        outputs: list[Output] = []
        rows = await tx.numbered(ROWS_MAX)
        by_project: dict[str, list[InboxRow]] = {}
        for project_id, row in rows:
            by_project.setdefault(project_id, []).append(row)
        settled = await tx.claim(HOP, [Run(row.source_id, INBOX_EPOCH, 0, 0) for _, row in rows])
        for project_id, found in by_project.items():
            revision = await tx.newest_revision(project_id, held=False)
            registry = await self._registries.refresh(project_id, revision)
            batch, gone, stopped = _messages(registry, found)
            outputs.append(Output(WRITER, encode_messages(batch)))
            await tx.put_back([row.seq for row in gone])
            replayed = [row for row in found if row not in gone]
            await tx.remove([row.seq for row in replayed])
            for row in replayed:
                settled.count(row.source_id, INBOX_EPOCH, "unresolved", -1)
            for row in stopped:
                settled.count(row.source_id, INBOX_EPOCH, "stopped", 1)
        await tx.settle(settled)
        self._moved = len(rows)
        return outputs


async def _number(tx: Transaction, limit: int) -> int:
    """Gives messages whose device exists by now their place in the replay; returns how many."""
    by_source: dict[int, list[int]] = {}
    found = await tx.replayable(limit)
    for source_id, seq in found:
        by_source.setdefault(source_id, []).append(seq)
    for source_id, seqs in sorted(by_source.items()):
        held = await tx.claim(HOP, [Run(source_id, INBOX_EPOCH, 0, 0)])
        start = held.done[source_id, INBOX_EPOCH].end
        await tx.number([(seq, start + place) for place, seq in enumerate(seqs)])
        await tx.settle(await tx.claim(HOP, [Run(source_id, INBOX_EPOCH, start, len(seqs))]))
    return len(found)


def _messages(registry: Registry, rows: Sequence[InboxRow]) -> tuple[MessageBatch, list[InboxRow], list[InboxRow]]:
    """Each row as one record of the inbox's epoch; and the rows whose device is gone again, and those that their route
    stops. Their numbers count as done, so that numbers stay contiguous."""
    batch = MessageBatch([], [], b"", [], [], [], [], [], [], [], [], [], [], [])
    gone: list[InboxRow] = []
    stopped: list[InboxRow] = []
    ids: list[bytes] = []
    places: dict[tuple[str, str, str], int] = {}
    for record, row in enumerate(rows):
        _extend(batch.runs, row)
        name = (row.network_id, row.alias_key, row.alias)
        place = places.get(name)
        if place is None:
            place = places[name] = len(batch.targets)
            batch.targets.append(registry.target(*name))
        target = batch.targets[place]
        if not target.device_id:
            gone.append(row)
        elif next_topic(target.route, ROUTABLE) != WRITER:
            stopped.append(row)
        else:
            ids.append(row.id)
            batch.record.append(record)
            batch.message_index.append(0)
            batch.target_index.append(place)
            batch.flags.append(row.flags)
            batch.time.append(row.time)
            batch.received_time.append(row.received_time)
            batch.event_time.append(row.event_time)
            batch.data.append(row.data)
            batch.payloads.append(b"")
            batch.time_error_ms.append(row.time_error_ms)
            batch.carriers.append(row.record)
    return fit(registry, msgspec.structs.replace(batch, ids=b"".join(ids))), gone, stopped


def _extend(runs: list[Run], row: InboxRow) -> None:
    """Adds the row's number to the last run, or starts one."""
    assert row.replay_seq is not None, "only numbered rows are replayed"
    last = runs[-1] if runs else None
    if last is not None and last.source_id == row.source_id and last.first_seq + last.count == row.replay_seq:
        runs[-1] = Run(last.source_id, last.epoch, last.first_seq, last.count + 1)
    else:
        runs.append(Run(row.source_id, INBOX_EPOCH, row.replay_seq, 1))
