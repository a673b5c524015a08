"""Does the jobs that people ask for (cloud/model/job.py), step by step, each step one transaction; several processes
share them, and each job gets its turn."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import msgspec

from cloud.db.database import DatabaseError
from cloud.model.job import Job, JobFailedError
from cloud.model.output import Output
from cloud.services.outputs import Outputs
from cloud.services.replay import HOP
from cloud.services.store import Store, Transaction
from cloud.topics import DEFAULT_PROCESSOR, WRITER
from protocols.messages import Lane
from sync.bus.contract import Bus, BusError
from tidegate.logs import get_logger
from tidegate.pause import pause

LOOK_EVERY_S: Final = 1.0
"""How long a job is not seen at most. One look is one query that finds nothing by its index."""
ATTEMPTS_MAX: Final = 3
"""Tries of a step that fails by itself: a fault of the moment passes by then."""

_log = get_logger("jobs")


class JobKind(Protocol):
    async def step(self, tx: Transaction, job: Job) -> tuple[Job, Sequence[Output]]:
        """Does the next piece, some tens of milliseconds of work, and gives the job as it is after that (state `done`:
        it was the last), and what goes to other topics. Raises JobFailedError."""
        ...


class Jobs:
    def __init__(self, kinds: Mapping[str, JobKind], bus: Bus, store: Store) -> None:
        self._kinds = kinds
        self._store = store
        self._outputs = Outputs(HOP, (WRITER, DEFAULT_PROCESSOR), bus, store)
        self._failed: dict[int, int] = {}
        """Attempts in a row that failed, by job."""

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set. What the bus does not take is published by the sweep of the inbox's outputs."""
        while not stop.is_set():
            try:
                while not stop.is_set() and await self.step():
                    pass
            except (BusError, DatabaseError) as error:
                _log.warning("jobs go on later", reason=str(error), again_in_s=LOOK_EVERY_S)
            await pause(stop, LOOK_EVERY_S)

    async def step(self) -> bool:
        """The next step of the job whose turn it is; False: there is none. Raises BusError, DatabaseError."""
        taken: Job | None = None

        async def work(tx: Transaction) -> Sequence[Output]:
            nonlocal taken
            taken = await tx.next_job(tuple(self._kinds))
            if taken is None:
                return []
            if taken.cancel_asked:
                await tx.advance_job(msgspec.structs.replace(taken, state="cancelled"))
                return []
            running = msgspec.structs.replace(taken, state="running")
            moved, outputs = await self._kinds[taken.kind].step(tx, running)
            await tx.advance_job(moved)
            return outputs

        try:
            await self._outputs.run(Lane.BACKFILL, work)
        except (BusError, DatabaseError):
            raise
        except JobFailedError as error:
            await self._fail(taken, str(error))
        except Exception as error:  # whatever is wrong with one job, the others go on
            if taken is None:
                raise
            self._failed[taken.number] = self._failed.get(taken.number, 0) + 1
            _log.error("step of a job failed", job=taken.number, kind=taken.kind, exc_info=error)
            if self._failed[taken.number] >= ATTEMPTS_MAX:
                await self._fail(taken, f"{type(error).__name__}: {error}")
        else:
            if taken is not None:
                self._failed.pop(taken.number, None)
        return taken is not None

    async def _fail(self, job: Job | None, reason: str) -> None:
        if job is not None:
            self._failed.pop(job.number, None)
            failed = msgspec.structs.replace(job, state="failed", error=reason)
            await self._store.run(lambda tx: tx.advance_job(failed))
