"""Decoding rejects again, as `tidegate-cloud rejects replay` asks for it and watches it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from cloud.db import reject_replays
from cloud.db.database import Database
from cloud.model.rejected import RejectFilter, RejectReplay

LOOK_EVERY_S: Final = 0.25


async def replay(
    database: Database, project_id: str, wanted: RejectFilter, told: Callable[[RejectReplay], None], *, wait: bool
) -> RejectReplay:
    """Asks for it; `wait`: until it is finished, which the service `replay` has to run for. `told` is called with each
    state that is seen. Raises DatabaseError."""
    found = await database.run(lambda conn: reject_replays.create(conn, project_id, wanted))
    told(found)
    while wait and found.finished_at is None:
        await asyncio.sleep(LOOK_EVERY_S)
        async with database.connection() as conn:
            found = await reject_replays.get(conn, project_id, found.number)
        told(found)
    return found
