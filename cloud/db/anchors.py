"""Clock anchors: what moments of gateways' boot clocks were in true time."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from cloud.db.database import Connection
from protocols.messages import Anchor


async def keep(conn: Connection, source_id: int, anchors: Sequence[Anchor]) -> None:
    """One that is kept already stays as it is: times were derived from it."""
    await conn.executemany(
        """INSERT INTO clock_anchor (source_id, boot, boot_ms, wall_ms, error_ms, origin)
           VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING""",
        [(source_id, *msgspec.structs.astuple(anchor)) for anchor in sorted(anchors)],
    )


async def of_boots(conn: Connection, source_id: int, boots: Collection[int]) -> dict[int, list[Anchor]]:
    """By boot, those of a boot by rising `boot_ms`; a boot without any is missing."""
    found = await conn.fetch(
        """SELECT boot, boot_ms, wall_ms, error_ms, origin FROM clock_anchor
           WHERE source_id = $1 AND boot = ANY($2::bigint[]) ORDER BY boot, boot_ms""",
        source_id,
        list(boots),
    )
    by_boot: dict[int, list[Anchor]] = {}
    for row in found:
        by_boot.setdefault(row["boot"], []).append(Anchor(**dict(row)))
    return by_boot
