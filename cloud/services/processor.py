"""The message processor: opens blocks, decodes, resolves, routes; unknown devices' messages go to the inbox."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from cloud.model.claim import Claim, rows_by_epoch
from cloud.model.output import Output
from cloud.model.route import next_topic
from cloud.services import books
from cloud.services.store import Transaction
from cloud.topics import DEFAULT_PROCESSOR, PROCESSOR, ROUTABLE, TRANSPONDER, WRITER
from protocols.batch import RecordBatch
from protocols.block import BlockHead, open_block, read_head
from protocols.messages import Anchor, ClockState, Lane
from protocols.shipment import (
    LATE,
    MessageBatch,
    Run,
    concat,
    decode_shipment,
    encode_messages,
    encode_shipment,
    pick,
    record_places,
    restrict,
)
from sync.registry import Registry
from sync.resolve import NO_ANCHORS, Resolver

Block = tuple[Run, BlockHead, list[RecordBatch]]
Anchors = Mapping[int, Mapping[int, Sequence[Anchor]]]
"""By source, then by boot, those of a boot by rising `boot_ms`."""


class Registries(Protocol):
    async def registry(self, project_id: str) -> Registry: ...

    async def refresh(self, project_id: str, at_least_revision: int) -> Registry:
        """The project's registry, at that revision or a later one."""
        ...


class Processor:
    name = PROCESSOR
    reads = DEFAULT_PROCESSOR
    writes: tuple[str, ...] = (WRITER,)

    def __init__(self, registries: Registries) -> None:
        self._registries = registries
        self._projects: dict[int, str] = {}

    async def handle(self, tx: Transaction, batch: Sequence[bytes], lane: Lane) -> list[Output]:
        blocks = [
            (consignment.source_id, *open_block(consignment.block))
            for data in batch
            for consignment in decode_shipment(data)
        ]
        by_project: dict[str, list[Block]] = {}
        projects = await self._projects_of(tx, {source_id for source_id, _, _ in blocks})
        for source_id, head, batches in blocks:
            run = Run(source_id, head.epoch, head.first_seq, head.records)
            by_project.setdefault(projects[source_id], []).append((run, head, batches))
        resolved = {}
        anchors = await _anchors(tx, blocks)
        for project_id, found in by_project.items():
            registry = await self._registries.registry(project_id)
            resolved[project_id] = (_resolve(registry, found, anchors), registry.revision)
        asked = [run for found in by_project.values() for run, _, _ in found]
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
                messages = msgspec.structs.replace(messages, flags=[flags | LATE for flags in messages.flags])
            if messages.runs:
                outputs += await _route(tx, project_id, messages, claimed)
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
        blocks: Sequence[Block],
        anchors: Anchors,
    ) -> MessageBatch:
        """Makes sure that who looks unknown is unknown by the newest registry there is: while it is held, no device is
        created until this transaction has written its messages to the inbox."""
        if all(target.device_id for target in messages.targets) and not messages.rejects:
            return messages
        newest = await tx.newest_revision(project_id, held=True)
        if newest <= revision:
            return messages
        return _resolve(await self._registries.refresh(project_id, newest), blocks, anchors)


def _resolve(registry: Registry, blocks: Sequence[Block], anchors: Anchors) -> MessageBatch:
    """`anchors` date the records of their own source only: what a gateway calls its boots is its own affair."""

    def dated(block: Block) -> int:
        source_id = block[0].source_id
        return source_id if source_id in anchors else 0

    parts = []
    for source_id, mine in itertools.groupby(blocks, dated):
        resolver = Resolver(registry, anchors.get(source_id, NO_ANCHORS))
        for run, _, batches in mine:
            resolver.add(run, batches)
        parts.append(resolver.finish())
    return concat(parts)


async def _anchors(tx: Transaction, blocks: Sequence[tuple[int, BlockHead, list[RecordBatch]]]) -> Anchors:
    """Of the boots whose clock was not synchronized."""
    boots: dict[int, set[int]] = {}
    for source_id, _, batches in blocks:
        for batch in batches:
            if batch.clock.state is not ClockState.SYNCHRONIZED:
                boots.setdefault(source_id, set()).add(batch.clock.boot)
    return {source_id: await tx.anchors(source_id, mine) for source_id, mine in boots.items()}


async def _route(tx: Transaction, project_id: str, messages: MessageBatch, claimed: Claim) -> list[Output]:
    """Writes inbox and rejects, counts, and gives what goes on. The writer's batch names all runs, also those that gave
    it no row, so that its progress stays contiguous."""
    writer, unknown, stopped = _split(messages)
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


def _split(messages: MessageBatch) -> tuple[list[int], list[int], list[int]]:
    """Rows for the writer, rows of unknown devices, rows that their route stops."""
    kinds = [
        1 if not target.device_id else 0 if next_topic(target.route, ROUTABLE) == WRITER else 2
        for target in messages.targets
    ]
    rows: tuple[list[int], list[int], list[int]] = ([], [], [])
    for i, place in enumerate(messages.target_index):
        rows[kinds[place]].append(i)
    return rows
