"""What each hop has done, per source and epoch: claiming records in a transaction, and counting their fates in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import asyncpg

from cloud.db.database import Connection
from protocols.shipment import Run
from sync.ranges import Ranges

INBOX_EPOCH: Final = 0
"""The epoch of replayed inbox messages; a log's epochs are random and never 0."""

FATES: Final = (
    "accepted",
    "decoded_records",
    "rejected_records",
    "dead_records",
    "decoded",
    "stored",
    "repeated",
    "unresolved",
    "rejected",
    "stopped",
    "dead",
)

_LOCK_MISSING: Final = """
    INSERT INTO hop_progress (source_id, epoch, hop)
    SELECT source_id, epoch, $3 FROM unnest($1::bigint[], $2::bigint[]) AS asked (source_id, epoch)
    ORDER BY 1, 2 ON CONFLICT DO NOTHING"""
_LOCK: Final = """
    SELECT p.source_id, p.epoch, p.done FROM hop_progress p
    JOIN unnest($1::bigint[], $2::bigint[]) AS asked (source_id, epoch) USING (source_id, epoch)
    WHERE p.hop = $3 ORDER BY 1, 2 FOR UPDATE OF p"""
_FATE_ARRAYS: Final = ", ".join(f"${n}::bigint[]" for n in range(5, 5 + len(FATES)))
_SETTLE: Final = f"""
    UPDATE hop_progress p SET done = p.done + asked.done::int8multirange,
    {", ".join(f"{fate} = p.{fate} + asked.{fate}" for fate in FATES)}
    FROM unnest($1::bigint[], $2::bigint[], $4::text[], {_FATE_ARRAYS})
    AS asked (source_id, epoch, done, {", ".join(FATES)})
    WHERE p.source_id = asked.source_id AND p.epoch = asked.epoch AND p.hop = $3"""


class Claim:
    """The records of some runs that a hop has not done yet. Their rows stay locked until the transaction ends."""

    def __init__(self, hop: str, runs: Sequence[Run], done: dict[tuple[int, int], Ranges]) -> None:
        self._hop = hop
        self._counts: dict[tuple[int, int], dict[str, int]] = {}
        self._claimed: dict[tuple[int, int], Ranges] = {}
        self.runs: list[list[Run]] = []
        """For each run asked for: the parts of it that are still to be done."""
        for run in runs:
            name = (run.source_id, run.epoch)
            claimed = self._claimed.setdefault(name, Ranges())
            parts = []
            for start, end in done[name].missing(run.first_seq, run.first_seq + run.count):
                for part_start, part_end in claimed.missing(start, end):
                    parts.append(Run(run.source_id, run.epoch, part_start, part_end - part_start))
            for part in parts:
                claimed.add(part.first_seq, part.first_seq + part.count)
            self.runs.append(parts)
        self.complete = all(parts == [run] for parts, run in zip(self.runs, runs, strict=True))
        """Whether nothing of it was done before: the usual case."""

    def count(self, source_id: int, epoch: int, fate: str, number: int) -> None:
        if number:
            counts = self._counts.setdefault((source_id, epoch), dict.fromkeys(FATES, 0))
            counts[fate] += number

    async def settle(self, conn: Connection) -> None:
        """Writes what was claimed as done, with the fates counted."""
        none = dict.fromkeys(FATES, 0)
        rows = []
        for name in sorted(self._claimed.keys() | self._counts.keys()):
            claimed = self._claimed.get(name, Ranges())
            counts = self._counts.get(name, none)
            if claimed or counts is not none:
                text = "{" + ",".join(f"[{start},{end})" for start, end in claimed) + "}"
                rows.append((*name, text, *counts.values()))
        if rows:
            sources, epochs, done, *fates = (list(column) for column in zip(*rows, strict=True))
            await conn.execute(_SETTLE, sources, epochs, self._hop, done, *fates)


async def claim(conn: Connection, hop: str, runs: Sequence[Run]) -> Claim:
    """Locks the hop's rows of the runs' sources, in order, and finds what is left to do."""
    names = sorted({(run.source_id, run.epoch) for run in runs})
    sources, epochs = [name[0] for name in names], [name[1] for name in names]
    locked = await conn.fetch(_LOCK, sources, epochs, hop)
    if len(locked) < len(names):
        await conn.execute(_LOCK_MISSING, sources, epochs, hop)
        locked = await conn.fetch(_LOCK, sources, epochs, hop)
    return Claim(hop, runs, {(row["source_id"], row["epoch"]): _ranges(row["done"]) for row in locked})


async def lock_epoch(conn: Connection, hop: str, source_id: int, epoch: int) -> Ranges:
    """What one hop has of one epoch, locked until the transaction ends."""
    run = Run(source_id, epoch, 0, 0)
    await claim(conn, hop, [run])
    row = await conn.fetchrow(
        "SELECT done FROM hop_progress WHERE source_id = $1 AND epoch = $2 AND hop = $3", source_id, epoch, hop
    )
    return _ranges(row["done"] if row else [])


def _ranges(done: Iterable[asyncpg.Range[int]]) -> Ranges:
    """PostgreSQL gives ranges of whole numbers as [lower, upper), both set."""
    return Ranges((part.lower or 0, part.upper or 0) for part in done)
