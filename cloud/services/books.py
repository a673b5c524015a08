"""The books that gateways keep beside their blocks: gaps, and what they believe that the cloud has.

A record is the cloud's once the receiver has its number. One that was published, and whose range the receiver did not
get to write before a crash, is known by the processor's ranges; it is accepted here as soon as it is asked for.

Locks are taken in one order: receiver, processor, gap. Whoever accepts or works on a record holds one of the first two,
and looks for gaps that claim it; whoever writes a gap holds both, and looks for records. So neither can miss the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cloud.model.claim import Name
from cloud.model.gaps import FATE_OF, cut, new_tails, run_of, without
from cloud.services.store import Transaction
from cloud.topics import PROCESSOR
from protocols.messages import Gap, GapKind
from protocols.shipment import Run
from sync.link.frames import Span
from sync.ranges import Ranges

RECEIVER: Final = "receiver"
GAP: Final = "gap"
"""Hops: what is accepted, and what gateways have lost."""


async def accept(tx: Transaction, runs: Sequence[Run]) -> int:
    """The receiver has these records; those that a gap claims are no loss any more. Gives how many are new."""
    claim = await tx.claim(RECEIVER, runs)
    parts = claim.parts
    for part in parts:
        claim.count(part.source_id, part.epoch, "accepted", part.count)
    await tx.settle(claim)
    await reclassify(tx, parts)
    return sum(part.count for part in parts)


async def reclassify(tx: Transaction, runs: Sequence[Run]) -> None:
    """These records have come: takes them out of the gaps that claim them. The caller holds the receiver's or the
    processor's lock of their epochs."""
    if not runs:
        return
    lost = (await tx.claim(GAP, _epochs(runs), held=False)).done
    back = [run for run in runs if _parts(lost[run.source_id, run.epoch], run)]
    if not back:
        return
    claim = await tx.claim(GAP, _epochs(back))
    for run in back:
        for part in claim.release(run):
            end = part.first_seq + part.count
            for gap in await tx.gaps(part.source_id, part.epoch, part.first_seq, end):
                if gap.kind is not GapKind.TAIL:
                    left = without(gap, [(part.first_seq, end)])
                    await tx.remove_gaps(part.source_id, [gap])
                    await tx.add_gaps(part.source_id, left)
                    claim.count(
                        part.source_id, part.epoch, FATE_OF[gap.kind], sum(rest.records for rest in left) - gap.records
                    )
    await tx.settle(claim)


async def keep_gaps(tx: Transaction, source_id: int, gaps: Sequence[Gap]) -> list[Span]:
    """Records losses, each record once however often it is told. Gives which of them are none, since the cloud has the
    records."""
    runs = [run_of(source_id, gap) for gap in gaps]
    known = await _known(tx, runs)
    missing: list[Run] = []
    of_gap: list[Gap] = []
    has: list[Span] = []
    for gap, run in zip(gaps, runs, strict=True):
        ranges = known[source_id, gap.epoch]
        has += [Span(gap.epoch, part.first_seq, part.first_seq + part.count) for part in _parts(ranges, run)]
        for start, end in ranges.missing(gap.first_seq, gap.end_seq):
            missing.append(Run(source_id, gap.epoch, start, end - start))
            of_gap.append(gap)
    tails = [gap for gap in gaps if gap.kind is GapKind.TAIL]
    claim = await tx.claim(GAP, [*missing, *(run_of(source_id, tail) for tail in tails)])
    new = [
        cut(gap, part.first_seq, part.first_seq + part.count)
        for gap, parts in zip(of_gap, claim.runs[: len(of_gap)], strict=True)
        for part in parts
    ]
    held = [gap for tail in tails for gap in await tx.gaps(source_id, tail.epoch, tail.first_seq, tail.first_seq)]
    new += new_tails(tails, held)
    for gap in new:
        claim.count(source_id, gap.epoch, FATE_OF[gap.kind], 1 if gap.kind is GapKind.TAIL else gap.records)
    await tx.add_gaps(source_id, new)
    await tx.settle(claim)
    return has


async def missing_of(tx: Transaction, source_id: int, spans: Sequence[Span]) -> list[Span]:
    """What of these records, which the gateway takes for accepted, the cloud does not have."""
    runs = [Run(source_id, span.epoch, span.first, span.end - span.first) for span in spans]
    known = await _known(tx, runs)
    return [
        Span(span.epoch, start, end)
        for span in spans
        for start, end in known[source_id, span.epoch].missing(span.first, span.end)
    ]


async def _known(tx: Transaction, runs: Sequence[Run]) -> dict[Name, Ranges]:
    """What the cloud has of the runs' epochs; locked. What only the processor knows of the runs is accepted."""
    received = (await tx.claim(RECEIVER, _epochs(runs))).done
    processed = (await tx.claim(PROCESSOR, _epochs(runs))).done
    await accept(tx, [part for run in runs for part in _parts(processed[run.source_id, run.epoch], run)])
    return {name: Ranges((*ranges, *processed[name])) for name, ranges in received.items()}


def _epochs(runs: Sequence[Run]) -> list[Run]:
    """What claims none of their records: to lock or to look."""
    return [Run(*name, 0, 0) for name in sorted({(run.source_id, run.epoch) for run in runs})]


def _parts(ranges: Ranges, run: Run) -> list[Run]:
    """Those of the run's records that the ranges hold."""
    return [
        Run(run.source_id, run.epoch, start, end - start)
        for start, end in ranges.held(run.first_seq, run.first_seq + run.count)
    ]
