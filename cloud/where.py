"""*Where is my message?* Asked by the API and by `tidegate-cloud where`: the facts of one moment, told as places."""

from __future__ import annotations

from cloud.db import where as stored
from cloud.db.database import Connections
from cloud.model import where as rules
from cloud.model.where import Place
from protocols.ids import RecordName
from sync.registry import Alias


async def by_id(database: Connections, project_id: str | None, text: str) -> list[Place]:
    """`text`: a message's id, or a record as epoch/number; `project_id` None: of any project. Raises ValueError for
    what is neither, DatabaseError."""
    asked = rules.asked_id(text)
    async with database.transaction(isolation="repeatable_read", readonly=True) as conn:
        if isinstance(asked, RecordName):
            return rules.of_record(await stored.of_record(conn, project_id, asked, whole="/" in text))
        return rules.of_key(await stored.of_key(conn, project_id, asked))


async def by_device(database: Connections, project_id: str, alias: Alias, time_ms: int) -> list[Place]:
    """`time_ms`: the message's, as the device or the gateway gave it, or as it is filed. Raises DatabaseError."""
    async with database.transaction(isolation="repeatable_read", readonly=True) as conn:
        return rules.of_device(await stored.of_device(conn, project_id, alias, time_ms))
