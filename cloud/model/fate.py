"""What has become of records that are on their way through the pipeline."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec

from cloud.model.route import next_topic
from cloud.topics import ROUTABLE, WRITER
from protocols.shipment import MessageBatch, Run, carriers_of

STORED: Final = "stored"
REPEATED: Final = "repeated"
UNRESOLVED: Final = "unresolved"
REJECTED: Final = "rejected"
STOPPED: Final = "stopped"
DEAD: Final = "dead"
NOTHING: Final = "nothing"
"""It left no row: decoded to no message, or its rows are gone again."""
WAITING: Final = "waiting"
"""Accepted, and on its way through the streams."""
FATES: Final = (STORED, REPEATED, UNRESOLVED, REJECTED, STOPPED, DEAD, NOTHING, WAITING)
_ORDER: Final = (DEAD, REJECTED, UNRESOLVED, STORED, REPEATED, STOPPED)
"""Of a record whose messages had several: what needs somebody's attention first; what was only foreseen last."""


class Foreseen(msgspec.Struct, frozen=True):
    """A message as it was resolved when its record was taken: where it stands if nothing has changed since."""

    record_seq: int
    device_id: int
    event_time: int
    id: bytes
    carrier: bytes
    """The id that it would have without a message key."""
    is_stopped: bool


class Found(msgspec.Struct, frozen=True):
    """What is stored about the records of a run, by their numbers."""

    rejected: Collection[int] = ()
    dead: Collection[int] = ()
    unresolved: Collection[int] = ()
    stored: Collection[int] = ()
    repeated: Collection[int] = ()


def foreseen(batch: MessageBatch, run: Run, first_place: int) -> list[Foreseen]:
    """The messages of the run's records, which begin at `first_place` of the batch's."""
    carriers = carriers_of(batch)
    stopped = [next_topic(target.route, ROUTABLE) != WRITER for target in batch.targets]
    return [
        Foreseen(
            run.first_seq + record - first_place,
            batch.targets[batch.target_index[i]].device_id,
            batch.event_time[i],
            batch.ids[16 * i : 16 * i + 16],
            carriers[i],
            bool(batch.targets[batch.target_index[i]].device_id) and stopped[batch.target_index[i]],
        )
        for i, record in enumerate(batch.record)
        if first_place <= record < first_place + run.count
    ]


def fates_of(run: Run, messages: Sequence[Foreseen], found: Found) -> dict[int, str | None]:
    """Of each record that all hops are done with, by its number; None: nothing is stored that was foreseen, so it has
    to be looked for."""
    stopped = {message.record_seq for message in messages if message.is_stopped}
    sets: Mapping[str, Collection[int]] = {
        DEAD: found.dead,
        REJECTED: found.rejected,
        UNRESOLVED: found.unresolved,
        STOPPED: stopped,
        STORED: found.stored,
        REPEATED: found.repeated,
    }
    return {
        seq: next((fate for fate in _ORDER if seq in sets[fate]), None)
        for seq in range(run.first_seq, run.first_seq + run.count)
    }
