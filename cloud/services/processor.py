"""The message processor: opens blocks, decodes, resolves, routes; unknown devices' messages go to the inbox."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from cloud.model.claim import Claim, rows_by_epoch
from cloud.model.output import Output
from cloud.services import books
from cloud.services.events import keep_events
from cloud.services.resolving import Anchors, Records, Registries, anchors_of, by_fate, late, resolve
from cloud.services.store import Transaction
from cloud.topics import DEFAULT_PROCESSOR, PROCESSOR, TRANSPONDER, WRITER
from protocols.block import open_block, read_head
from protocols.messages import Lane
from protocols.shipment import (
    Consignment,
    MessageBatch,
    Run,
    decode_shipment,
    encode_messages,
    encode_shipment,
    pick,
    record_places,
    restrict,
)


class Processor:
    name = PROCESSOR
    reads = DEFAULT_PROCESSOR
    writes: tuple[str, ...] = (WRITER,)

    def __init__(self, registries: Registries) -> None:
        self._registries = registries
        self._projects: dict[int, str] = {}

    async def handle(self, tx: Transaction, batch: Sequence[bytes], lane: Lane) -> list[Output]:
        blocks = [_opened(consignment) for data in batch for consignment in decode_shipment(data)]
        by_project: dict[str, list[Records]] = {}
        projects = await self._projects_of(tx, {run.source_id for run, _ in blocks})
        for run, batches in blocks:
            by_project.setdefault(projects[run.source_id], []).append((run, batches))
        resolved = {}
        anchors = await anchors_of(tx, blocks)
        for project_id, found in by_project.items():
            registry = await self._registries.registry(project_id)
            resolved[project_id] = (resolve(registry, found, anchors), registry.revision)
        asked = [run for found in by_project.values() for run, _ in found]
        claimed = await tx.claim(self.name, asked, held=False)
        outputs = []
        at = 0
        for project_id, found in by_project.items():
            parts = claimed.runs[at : at + len(found)]
            at += len(found)
            messages = await self._settle_unknown(tx, project_id, *resolved[project_id], found, anchors)
            if not claimed.complete:
                messages = restrict(messages, parts)
            if lane is Lane.BACKFILL:
                messages = late(messages)
            if messages.runs:
                outputs += await _route(tx, project_id, messages, claimed)
            await keep_events(tx, project_id, found, parts, anchors)
        await tx.settle(claimed)
        await books.reclassify(tx, claimed.parts)
        return outputs

    def split(self, data: bytes) -> list[bytes]:
        return [encode_shipment([consignment]) for consignment in decode_shipment(data)]

    async def bury(self, tx: Transaction, data: bytes, reason: str) -> None:
        for consignment in decode_shipment(data):
            head = read_head(consignment.block)
            run = Run(consignment.source_id, head.epoch, head.first_seq, head.records)
            claimed = await tx.claim(self.name, [run])
            lost = sum(part.count for part in claimed.runs[0])
            if lost:
                projects = await self._projects_of(tx, {run.source_id})
                claimed.count(run.source_id, run.epoch, "dead_records", lost)
                await tx.settle(claimed)
                await books.reclassify(tx, claimed.parts)
                # Nothing of it will reach the writer: without this it would seem to be on its way there for ever.
                await tx.settle(await tx.claim(TRANSPONDER, claimed.runs[0]))
                await tx.add_dead_letter(
                    project_id=projects[run.source_id],
                    hop=self.name,
                    topic=self.reads,
                    runs=claimed.runs[0],
                    detail=reason,
                    data=consignment.block,
                )

    async def _projects_of(self, tx: Transaction, source_ids: set[int]) -> dict[int, str]:
        unseen = source_ids - self._projects.keys()
        if unseen:
            self._projects |= await tx.projects(list(unseen))
        return self._projects

    async def _settle_unknown(
        self,
        tx: Transaction,
        project_id: str,
        messages: MessageBatch,
        revision: int,
        blocks: Sequence[Records],
        anchors: Anchors,
    ) -> MessageBatch:
        """Makes sure that who looks unknown is unknown by the newest registry there is: while it is held, no device is
        created until this transaction has written its messages to the inbox."""
        if all(target.device_id for target in messages.targets) and not messages.rejects:
            return messages
        newest = await tx.newest_revision(project_id, held=True)
        if newest <= revision:
            return messages
        return resolve(await self._registries.refresh(project_id, newest), blocks, anchors)


def _opened(consignment: Consignment) -> Records:
    head, batches = open_block(consignment.block)
    return Run(consignment.source_id, head.epoch, head.first_seq, head.records), batches


async def _route(tx: Transaction, project_id: str, messages: MessageBatch, claimed: Claim) -> list[Output]:
    """Writes inbox and rejects, counts, and gives what goes on. The writer's batch names all runs, also those that gave
    it no row, so that its progress stays contiguous."""
    writer, unknown, stopped = by_fate(messages)
    places = record_places(messages.runs) if messages.rejects else []
    rejected = [(*places[reject.record], reject) for reject in messages.rejects]
    if unknown:
        await tx.add_unresolved(messages, unknown)
    if rejected:
        await tx.add_rejects(project_id, rejected)
    for run in messages.runs:
        claimed.count(run.source_id, run.epoch, "decoded_records", run.count)
    for run, _, _ in rejected:
        claimed.count(run.source_id, run.epoch, "decoded_records", -1)
        claimed.count(run.source_id, run.epoch, "rejected_records", 1)
    for fate, rows in (("decoded", range(len(messages))), ("unresolved", unknown), ("stopped", stopped)):
        for name, number in rows_by_epoch(messages, rows).items():
            claimed.count(*name, fate, number)
    onward = messages if len(writer) == len(messages) else pick(messages, writer)
    return [Output(WRITER, encode_messages(msgspec.structs.replace(onward, rejects=[])))]
