"""What each hop has done, per source and epoch (cloud/model/claim.py): locking, reading and adding to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import asyncpg

from cloud.db.database import Connection
from cloud.model.claim import FATES, Claim, Name
from protocols.shipment import Run
from sync.ranges import Ranges

_LOCK_MISSING: Final = """
    INSERT INTO hop_progress (source_id, epoch, hop)
    SELECT source_id, epoch, $3 FROM unnest($1::bigint[], $2::bigint[]) AS asked (source_id, epoch)
    ORDER BY 1, 2 ON CONFLICT DO NOTHING"""
_LOOK: Final = """
    SELECT p.source_id, p.epoch, p.done FROM hop_progress p
    JOIN unnest($1::bigint[], $2::bigint[]) AS asked (source_id, epoch) USING (source_id, epoch)
    WHERE p.hop = $3 ORDER BY 1, 2"""
_LOCK: Final = _LOOK + " FOR UPDATE OF p"
_FATE_ARRAYS: Final = ", ".join(f"${n}::bigint[]" for n in range(6, 6 + len(FATES)))
_SETTLE: Final = f"""
    UPDATE hop_progress p SET done = p.done - asked.released::int8multirange + asked.done::int8multirange,
    {", ".join(f"{fate} = p.{fate} + asked.{fate}" for fate in FATES)}
    FROM unnest($1::bigint[], $2::bigint[], $4::text[], $5::text[], {_FATE_ARRAYS})
    AS asked (source_id, epoch, done, released, {", ".join(FATES)})
    WHERE p.source_id = asked.source_id AND p.epoch = asked.epoch AND p.hop = $3"""


async def claim(conn: Connection, hop: str, runs: Sequence[Run], *, held: bool = True) -> Claim:
    """Finds what is left to do; `held`: with the hop's rows of the runs' sources locked, in order."""
    names = sorted({(run.source_id, run.epoch) for run in runs})
    if held:
        return Claim(hop, runs, await _lock(conn, hop, names))
    found = await conn.fetch(_LOOK, [name[0] for name in names], [name[1] for name in names], hop)
    done = {(row["source_id"], row["epoch"]): ranges_of(row["done"]) for row in found}
    return Claim(hop, runs, {name: done.get(name) or Ranges() for name in names}, held=False)


async def _lock(conn: Connection, hop: str, names: Sequence[Name]) -> dict[Name, Ranges]:
    """What the hop has of each (source, epoch); `names` are in order."""
    sources, epochs = [name[0] for name in names], [name[1] for name in names]
    locked = await conn.fetch(_LOCK, sources, epochs, hop)
    if len(locked) < len(names):
        await conn.execute(_LOCK_MISSING, sources, epochs, hop)
        locked = await conn.fetch(_LOCK, sources, epochs, hop)
    return {(row["source_id"], row["epoch"]): ranges_of(row["done"]) for row in locked}


async def settle(conn: Connection, claim: Claim) -> None:
    """Writes what was claimed as done, with the fates counted."""
    if not claim.held:
        claim.check(await _lock(conn, claim.hop, sorted(claim.done)))
    rows = [
        (
            settlement.source_id,
            settlement.epoch,
            multirange(settlement.done),
            multirange(settlement.released),
            *settlement.counts.values(),
        )
        for settlement in claim.settlements()
    ]
    if rows:
        sources, epochs, done, released, *fates = (list(column) for column in zip(*rows, strict=True))
        await conn.execute(_SETTLE, sources, epochs, claim.hop, done, released, *fates)


def multirange(ranges: Ranges) -> str:
    """As PostgreSQL's text of an int8multirange."""
    return "{" + ",".join(f"[{start},{end})" for start, end in ranges) + "}"


def ranges_of(done: Iterable[asyncpg.Range[int]]) -> Ranges:
    """PostgreSQL gives ranges of whole numbers as [lower, upper), both set."""
    return Ranges((part.lower or 0, part.upper or 0) for part in done)
