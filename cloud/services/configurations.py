"""Configurations on their way to gateways, and what gateways say of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from cloud.db import configurations
from cloud.db.database import Connection, Database, DatabaseError
from cloud.db.errors import NotFoundError
from sync.link.frames import Configuration, ConfigurationResult
from tidegate.logs import get_logger
from tidegate.pause import pause

POLL_S: Final = 60.0
"""How long one waits at most if its notification is lost."""
RETRY_S: Final = 2.0
"""Between attempts to reach the database."""
TOO_OLD: Final = "the gateway's version takes no configuration from the cloud"
TOO_OLD_REMEDY: Final = "update it: it is sent this one once it connects"

_log = get_logger("configurations")


class GatewayConfigurations:
    """The link's ConfigurationFeed, of one connection."""

    def __init__(self, database: Database, project_id: str, gateway_id: str) -> None:
        self._database = database
        self._project_id = project_id
        self._gateway_id = gateway_id
        self._result: ConfigurationResult | None = None
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """There may be another."""
        self._changed.set()

    async def configurations(self, revision: int | None) -> AsyncIterator[Configuration]:
        sent = revision or 0  # one that takes none has none
        while True:
            self._changed.clear()
            try:
                await self._keep()
                wanted = await self._wanted()
                if wanted.revision != sent:
                    sent = wanted.revision
                    if revision is None:
                        self._result = ConfigurationResult(sent, TOO_OLD, TOO_OLD_REMEDY)
                        await self._keep()
                    else:
                        _log.info("configuration to gateway", gateway=self._gateway_id, revision=sent)
                        yield wanted
            except DatabaseError as error:
                _log.warning("configuration waits for the database", gateway=self._gateway_id, reason=str(error))
                await asyncio.sleep(RETRY_S)
                continue
            await pause(self._changed, POLL_S)

    async def became(self, result: ConfigurationResult) -> None:
        self._result = result
        self._changed.set()

    async def _wanted(self) -> Configuration:
        async with self._database.connection() as conn:
            try:
                held = await configurations.get(conn, self._project_id, self._gateway_id)
            except NotFoundError:  # it was removed while it is connected
                return Configuration(0, None)
        return Configuration(held.revision, held.toml)

    async def _keep(self) -> None:
        result = self._result
        if result is None:
            return

        async def keep(conn: Connection) -> None:
            await configurations.became(conn, self._project_id, self._gateway_id, result)

        await self._database.run(keep)
        if self._result is result:
            self._result = None
        reason = result.refused or "in force"
        _log.info("configuration", gateway=self._gateway_id, revision=result.revision, reason=reason)
