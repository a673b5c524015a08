"""Waits for what becomes of records: one look at the hops' ranges for all requests of this process that wait."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from cloud import where
from cloud.db import fates, progress
from cloud.db.database import Database, DatabaseError
from cloud.model.fate import DEAD, FATES, NOTHING, UNRESOLVED, WAITING, Foreseen, fates_of
from cloud.topics import TRANSPONDER
from protocols.shipment import Run

LOOK_EVERY_S: Final = 0.02
"""From one look to the next while anybody waits: a fraction of what the pipeline takes, at a hundredth of a core."""
WAITING_RECORDS_MAX: Final = 100_000
"""Of all requests that wait at a time: some 300 bytes are held of each."""
LOOKED_FOR_MAX: Final = 50
"""Records of one request that are looked for one by one, as they are not where they were foreseen: a device that was
made or moved meanwhile. What is beyond that is told as WAITING."""
_FATE_OF: Final = {"inbox": UNRESOLVED, "replay": UNRESOLVED, "stream": WAITING, "dead": DEAD}


class FateWatch:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[asyncio.Future[None], Run] = {}
        self._looking: asyncio.Task[None] | None = None

    def has_room(self, records: int) -> bool:
        return sum(run.count for run in self._waiting.values()) + records <= WAITING_RECORDS_MAX

    async def fates(self, run: Run, messages: Sequence[Foreseen], within_s: float) -> list[str]:
        """Of each record of a request, in order, once all hops are done with all of them, or when the time is over.
        `messages`: theirs. Raises DatabaseError."""
        settled = asyncio.get_running_loop().create_future()
        self._waiting[settled] = run
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_on())
        try:
            async with asyncio.timeout(within_s):
                await settled
        except TimeoutError:
            pass
        finally:
            self._waiting.pop(settled, None)
        return await self._told(run, messages)

    async def _look_on(self) -> None:
        while self._waiting:
            asked = list(self._waiting.items())
            try:
                async with self._database.connection() as conn:
                    claim = await progress.claim(conn, TRANSPONDER, [run for _, run in asked], held=False)
            except DatabaseError:  # those who wait find out for themselves when their time is over
                await asyncio.sleep(LOOK_EVERY_S * 10)
                continue
            for settled, run in asked:
                if not claim.done[run.source_id, run.epoch].missing(run.first_seq, run.first_seq + run.count):
                    self._waiting.pop(settled, None)
                    if not settled.done():
                        settled.set_result(None)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _told(self, run: Run, messages: Sequence[Foreseen]) -> list[str]:
        async with self._database.transaction(isolation="repeatable_read", readonly=True) as conn:
            claim = await progress.claim(conn, TRANSPONDER, [run], held=False)
            found = fates_of(run, messages, await fates.found(conn, run, messages))
        done = claim.done[run.source_id, run.epoch]
        told = {seq: WAITING if seq not in done and fate is None else fate for seq, fate in found.items()}
        unknown = [seq for seq, fate in told.items() if fate is None]
        for seq in unknown[:LOOKED_FOR_MAX]:
            told[seq] = await self._looked_for(run, seq)
        return [fate or WAITING for fate in told.values()]

    async def _looked_for(self, run: Run, seq: int) -> str:
        (place, *_) = await where.by_id(self._database, None, f"{run.epoch:016x}/{seq}")
        state = _FATE_OF.get(place.state, place.state)
        return state if state in FATES else NOTHING
