"""Gives dead letters to their hops again, once what they failed on is mended.

The hop is not done with their records any more, their fate *dead* is taken back, the letter is gone, and its bytes are
kept to be published (outputs.py): one transaction, so that the accounting closes all the while, and a replay that is
cut off or asked for twice does nothing twice. What fails again is buried again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from cloud.model.claim import rows_by_epoch
from cloud.model.dead import DeadLetter
from cloud.model.job import Job
from cloud.model.output import Output
from cloud.services.store import Transaction
from cloud.topics import DEFAULT_PROCESSOR, PROCESSOR, TRANSPONDER, WRITER
from protocols.shipment import Consignment, Run, decode_messages, encode_shipment, restrict

KIND: Final = "dead-letters"
"""Its job: `asked` has `through` (the newest letter that it is about), and may have `seq` (only this one) and `hop`."""


class DeadLetterReplay:
    """A JobKind: one letter a step."""

    async def step(self, tx: Transaction, job: Job) -> tuple[Job, Sequence[Output]]:
        letter = await tx.next_dead_letter(
            job.project_id, job.position, job.asked["through"], job.asked.get("hop"), job.asked.get("seq")
        )
        if letter is None:
            return msgspec.structs.replace(job, state="done"), []
        outputs = await _give_again(tx, letter)
        result = dict(job.result)
        what = "replayed" if outputs else "kept"
        result[what] = result.get(what, 0) + 1
        return msgspec.structs.replace(job, position=letter.seq, done=job.done + 1, result=result), outputs


async def _give_again(tx: Transaction, letter: DeadLetter) -> list[Output]:
    """Empty: nobody knows whose records it is about, as it is older than that being noted; it is left alone."""
    if letter.source_id is None or letter.epoch is None:
        return []
    source_id, epoch = letter.source_id, letter.epoch
    runs = [Run(source_id, epoch, first, end - first) for first, end in letter.records]
    if letter.hop == PROCESSOR:
        lost = sum(part.count for part in await _release(tx, PROCESSOR, runs, "dead_records"))
        if lost:
            await _release(tx, TRANSPONDER, runs, None)
        outputs = [Output(DEFAULT_PROCESSOR, encode_shipment([Consignment(source_id, letter.data)]))]
    else:
        claim = await tx.claim(letter.hop, [Run(source_id, epoch, 0, 0)])
        parts = [part for run in runs for part in claim.release(run)]
        whole = decode_messages(letter.data)
        inside = [[both for part in parts if (both := _overlap(part, run)).count > 0] for run in whole.runs]
        messages = restrict(whole, inside)
        for name, number in rows_by_epoch(messages, range(len(messages))).items():
            claim.count(*name, "dead", -number)
        await tx.settle(claim)
        outputs = [Output(WRITER, letter.data)]
    await tx.remove_dead_letter(letter.seq)
    return outputs


async def _release(tx: Transaction, hop: str, runs: Sequence[Run], fate: str | None) -> list[Run]:
    """The hop is not done with them any more; the parts that it was done with."""
    claim = await tx.claim(hop, [Run(runs[0].source_id, runs[0].epoch, 0, 0)])
    parts = [part for run in runs for part in claim.release(run)]
    if fate is not None:
        claim.count(runs[0].source_id, runs[0].epoch, fate, -sum(part.count for part in parts))
    await tx.settle(claim)
    return parts


def _overlap(part: Run, run: Run) -> Run:
    """Of the same source and epoch; without a record where they have none in common."""
    first = max(part.first_seq, run.first_seq)
    end = min(part.first_seq + part.count, run.first_seq + run.count)
    return Run(run.source_id, run.epoch, first, max(0, end - first))
