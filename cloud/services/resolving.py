"""From records to messages in the cloud: what the processor does with blocks, and the replay with what was rejected."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import msgspec

from cloud.model.fitting import Model, model_of
from cloud.model.forwarding import ways_from
from cloud.model.route import next_topic
from cloud.services.store import Transaction
from cloud.topics import ROUTABLE, WRITER
from protocols.batch import RecordBatch
from protocols.messages import Anchor, ClockState
from protocols.shipment import LATE, Forward, MessageBatch, Misfit, Run, Target, concat
from sync.registry import Registry
from sync.resolve import NO_ANCHORS, Resolver

_raw_object: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

Records = tuple[Run, list[RecordBatch]]
"""Consecutive records of a source, and their numbers."""
Anchors = Mapping[int, Mapping[int, Sequence[Anchor]]]
"""By source, then by boot, those of a boot by rising `boot_ms`."""


class Registries(Protocol):
    async def registry(self, project_id: str) -> Registry: ...

    async def refresh(self, project_id: str, at_least_revision: int) -> Registry:
        """The project's registry, at that revision or a later one."""
        ...


def resolve(registry: Registry, records: Sequence[Records], anchors: Anchors) -> MessageBatch:
    """`anchors` date the records of their own source only: what a gateway calls its boots is its own affair."""

    def dated(part: Records) -> int:
        source_id = part[0].source_id
        return source_id if source_id in anchors else 0

    parts = []
    for source_id, mine in itertools.groupby(records, dated):
        resolver = Resolver(registry, anchors.get(source_id, NO_ANCHORS))
        for run, batches in mine:
            resolver.add(run, batches)
        parts.append(resolver.finish())
    return fit(registry, concat(parts))


def fit(registry: Registry, messages: MessageBatch) -> MessageBatch:
    """As their devices' blueprints have it: what does not fit is left out, and told with the message; what is forwarded
    to other devices goes with it. What has no model and no parent is not looked at."""
    return _forwarding(registry, _fitting(registry, messages))


def _fitting(registry: Registry, messages: MessageBatch) -> MessageBatch:
    models = [_model(registry, target) for target in messages.targets]
    if not any(models):
        return messages
    data, rows = list(messages.data), len(messages)
    current_only: list[bytes] = []
    misfits: list[tuple[Misfit, ...]] = []
    for i, place in enumerate(messages.target_index):
        model = models[place]
        fitted = None if model is None else model.fit(data[i])
        if fitted is None:
            continue
        data[i] = fitted.data
        if fitted.current_only:
            current_only = current_only or [b""] * rows
            current_only[i] = fitted.current_only
        if fitted.misfits:
            misfits = misfits or [()] * rows
            misfits[i] = fitted.misfits
    return msgspec.structs.replace(messages, data=data, current_only=current_only, misfits=misfits)


def _forwarding(registry: Registry, messages: MessageBatch) -> MessageBatch:
    ways = [ways_from(registry, target.device_id) if target.device_id else [] for target in messages.targets]
    if not any(ways):
        return messages
    targets = list(messages.targets)
    places: dict[int, int] = {}
    for way in itertools.chain.from_iterable(ways):
        target = registry.target_of(way.parent)
        if way.parent.id not in places and next_topic(target.route, ROUTABLE) == WRITER:
            places[way.parent.id] = len(targets)
            targets.append(target)
    if not places:
        return messages
    forwards: list[tuple[Forward, ...]] = []
    for i, place in enumerate(messages.target_index):
        mine = [way for way in ways[place] if way.parent.id in places]
        values = _raw_object(messages.current_of(i)) if mine else {}
        made = [way.forward(values, places[way.parent.id]) for way in mine]
        forwards.append(tuple(forward for forward in made if forward is not None))
    return msgspec.structs.replace(messages, targets=targets, forwards=forwards)


def _model(registry: Registry, target: Target) -> Model | None:
    blueprint = registry.blueprints.get(target.blueprint_id) if target.device_id else None
    return None if blueprint is None else model_of(blueprint.attributes)


async def anchors_of(tx: Transaction, records: Sequence[Records]) -> Anchors:
    """Of the boots whose clock was not synchronized."""
    boots: dict[int, set[int]] = {}
    for run, batches in records:
        for batch in batches:
            if batch.clock.state is not ClockState.SYNCHRONIZED:
                boots.setdefault(run.source_id, set()).add(batch.clock.boot)
    return {source_id: await tx.anchors(source_id, mine) for source_id, mine in boots.items()}


def late(messages: MessageBatch) -> MessageBatch:
    """The same, flagged as what came by the lane `backfill`."""
    return msgspec.structs.replace(
        messages,
        flags=[flags | LATE for flags in messages.flags],
        rejects=[msgspec.structs.replace(reject, late=True) for reject in messages.rejects],
    )


def by_fate(messages: MessageBatch) -> tuple[list[int], list[int], list[int]]:
    """Rows for the writer, rows of unknown devices, rows that their route stops."""
    kinds = [
        1 if not target.device_id else 0 if next_topic(target.route, ROUTABLE) == WRITER else 2
        for target in messages.targets
    ]
    rows: tuple[list[int], list[int], list[int]] = ([], [], [])
    for i, place in enumerate(messages.target_index):
        rows[kinds[place]].append(i)
    return rows
