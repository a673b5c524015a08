"""What gateways are to listen on in place of what their own files say, and what became of it."""

from __future__ import annotations

import datetime
from typing import Final

import msgspec

from cloud.db import commands, gateways
from cloud.db.database import Connection
from cloud.db.errors import ChangedError
from sync.link.frames import ConfigurationResult, ListenerChange
from sync.link.protocol import clip


class Configuration(msgspec.Struct, frozen=True):
    revision: int = 0
    """Unix ms of when it was put, or one more than the last: so it is another after a restore too. 0: none ever was."""
    toml: str | None = None
    """None: it was taken back, or there never was one."""
    put_at: datetime.datetime | None = None
    told_at: datetime.datetime | None = None
    refused: str | None = None
    """None: the gateway has not said anything yet; empty: it is in force."""
    remedy: str = ""
    listeners: tuple[ListenerChange, ...] = ()


_decode: Final = msgspec.json.Decoder(tuple[ListenerChange, ...]).decode


async def get(conn: Connection, project_id: str, gateway_id: str) -> Configuration:
    """Raises NotFoundError (the gateway)."""
    row = await conn.fetchrow(
        """SELECT revision, toml, put_at, told_at, refused, remedy, listeners FROM gateway_configuration
           WHERE project_id = $1 AND gateway_id = $2""",
        project_id,
        gateway_id,
    )
    if row is None:
        await gateways.get(conn, project_id, gateway_id)
        return Configuration()
    fields = dict(row)
    return Configuration(listeners=_decode(fields.pop("listeners")), **fields)


async def put(
    conn: Connection, project_id: str, gateway_id: str, toml: str | None, expected_revision: int | None = None
) -> Configuration:
    """None takes it back. The gateway's links are told. Raises NotFoundError, ChangedError."""
    await gateways.lock(conn, project_id, gateway_id)
    held = await get(conn, project_id, gateway_id)
    if expected_revision is not None and expected_revision != held.revision:
        raise ChangedError("configuration of gateway", gateway_id, expected_revision, held.revision)
    if toml == held.toml and not held.refused:
        return held
    await conn.execute(
        """INSERT INTO gateway_configuration AS c (project_id, gateway_id, revision, toml)
           VALUES ($1, $2, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint, $3)
           ON CONFLICT (project_id, gateway_id) DO UPDATE SET revision = greatest(c.revision + 1, excluded.revision),
               toml = excluded.toml, put_at = now(), told_at = NULL, refused = NULL, remedy = '', listeners = '[]'""",
        project_id,
        gateway_id,
        toml,
    )
    await commands.notify(conn, project_id, gateway_id)
    return await get(conn, project_id, gateway_id)


async def became(conn: Connection, project_id: str, gateway_id: str, result: ConfigurationResult) -> None:
    """What the gateway says of it, as far as it can be kept; nothing if there is another by now."""
    listeners = [ListenerChange(_kept(one.name), _kept(one.what), _kept(one.reason)) for one in result.listeners]
    await conn.execute(
        """UPDATE gateway_configuration SET told_at = now(), refused = $4, remedy = $5, listeners = $6
           WHERE project_id = $1 AND gateway_id = $2 AND revision = $3
             AND (refused, remedy, listeners) IS DISTINCT FROM ($4, $5, $6)""",
        project_id,
        gateway_id,
        result.revision,
        _kept(result.refused),
        _kept(result.remedy),
        msgspec.json.encode(listeners).decode(),
    )


def _kept(text: str) -> str:
    """PostgreSQL's text has no U+0000; and a gateway is not trusted to keep its explanations short."""
    return clip(text).replace("\0", "\ufffd")
