"""Creates the unknown devices of networks that want it: beside the pipeline, from what waits in the inbox. The replay
finds the devices like any others, and takes their messages out."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final

from cloud.db import auto_create
from cloud.db.database import Database, DatabaseError
from cloud.db.errors import RowError
from tidegate.logs import get_logger
from tidegate.pause import pause

LOOK_EVERY_S: Final = 1.0
"""How long a new name waits at most while there are few."""
DEVICES_MAX: Final = 20
"""Created in one transaction, some 50 ms: the processor waits for it where it meets unknown devices of that project."""
PAUSE_S: Final = 0.1
"""Between two such transactions: 200 devices a second at most, a third of the time for everyone else's changes."""

_log = get_logger("auto_create")


class AutoCreation:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            pause_s = LOOK_EVERY_S
            try:
                if await self.step():
                    pause_s = PAUSE_S
            except DatabaseError as error:
                _log.warning("devices are created later", reason=str(error))
            await pause(stop, pause_s)

    async def step(self) -> int:
        """A few devices of each network that has unknown ones; how many were created. Raises DatabaseError."""
        async with self._database.connection() as conn:
            networks = await auto_create.waiting(conn)
        created = 0
        for each in networks:
            try:
                created += await self._database.run(
                    partial(
                        auto_create.create_some,
                        project_id=each.project_id,
                        network_id=each.network_id,
                        limit=DEVICES_MAX,
                    )
                )
            except RowError as error:  # the option, or what it names, is gone since
                _log.warning("no device created", network=each.network_id, reason=str(error))
        return created
