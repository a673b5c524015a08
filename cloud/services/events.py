"""Answers to commands and devices' comings and goings, taken out of the records that the processor opens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cloud.model.command import Answer
from cloud.model.presence import Seen
from cloud.services.store import Transaction
from protocols.batch import RecordBatch
from protocols.events import Presence
from protocols.ids import record_message_id
from protocols.messages import Anchor
from protocols.shipment import Run
from sync.events import Event, events_of
from tidegate.logs import get_logger

_log = get_logger("events")

NO_ANCHORS: Mapping[int, Sequence[Anchor]] = {}


async def keep_events(
    tx: Transaction,
    project_id: str,
    blocks: Sequence[tuple[Run, Sequence[RecordBatch]]],
    claimed: Sequence[Sequence[Run]],
    anchors: Mapping[int, Mapping[int, Sequence[Anchor]]],
) -> None:
    """Of those records of each block that `claimed` has for it. `anchors`: by source, then by boot."""
    answers: list[Answer] = []
    seen: list[Seen] = []
    for (run, batches), parts in zip(blocks, claimed, strict=True):
        for event in events_of(run, batches, anchors.get(run.source_id, NO_ANCHORS)):
            if any(part.first_seq <= event.seq < part.first_seq + part.count for part in parts):
                if isinstance(event.said, Presence):
                    seen.append(_seen(run.source_id, event, event.said))
                else:
                    said, origin = event.said, event.origin
                    answers.append(
                        Answer(said.command_id, origin.network_id, origin.alias_key, origin.alias, event.payload,
                               said.refusal, event.time)
                    )  # fmt: skip
    for stray in await tx.answer_commands(project_id, answers) if answers else ():
        name = f"{stray.network_id}:{stray.alias_key}:{stray.alias}"
        _log.warning("an answer to no command of its device", project=project_id, device=name, command=stray.command_id)
    if seen:
        await tx.note_presence(project_id, seen)


def _seen(source_id: int, event: Event, said: Presence) -> Seen:
    origin = event.origin
    record = record_message_id(event.epoch, event.seq)
    return Seen(
        source_id, origin.network_id, origin.alias_key, origin.alias, origin.listener, said.online, said.reason,
        event.time, record,
    )  # fmt: skip
