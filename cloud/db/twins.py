"""Twins: what devices' attributes are to be, and the command that carries it."""

from __future__ import annotations

import uuid
from typing import Any, Final

import msgspec

from cloud.db import commands, current
from cloud.db.database import Connection
from cloud.db.errors import ChangedError, NotFoundError, RowError
from cloud.model.command import Standing
from cloud.model.twin import delta, merge_patch
from protocols.limits import COMMAND_PAYLOAD_BYTES_MAX
from protocols.messages import CommandState

COMMAND: Final = "twin"
"""The name of the command; its payload is `{"version": …, "desired": …}`, with all that is not reported as desired."""
DEADLINE_MS: Final = 30 * 86_400_000
"""For how long it waits for a device that is away."""
SUPERSEDED: Final = "a newer version of the twin took its place"


DESIRED_BYTES_MAX: Final = COMMAND_PAYLOAD_BYTES_MAX // 2
"""Of all desired attributes, as JSON: a command can carry it, whatever is reported."""


class TooLargeError(RowError):
    def __init__(self, size: int) -> None:
        super().__init__(f"the desired attributes would have {size:,} bytes")


class Twin(msgspec.Struct, frozen=True):
    desired: dict[str, Any]
    version: int
    """Rises with each change; 0: nothing was ever desired."""
    changed: int | None
    """Unix milliseconds."""
    reported: dict[str, Any]
    """The attributes' current values."""
    command_id: uuid.UUID | None
    """The last that carried it."""
    standing: Standing | None
    """How that stands."""

    @property
    def delta(self) -> dict[str, Any]:
        return delta(self.desired, self.reported)


_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode


async def get(conn: Connection, project_id: str, device_id: int) -> Twin:
    """Of a device that exists."""
    row = await conn.fetchrow(
        """SELECT t.desired, t.version, t.changed, t.command_id, c.state, c.reason, c.state_time
           FROM twin t LEFT JOIN command c ON c.id = t.command_id WHERE t.project_id = $1 AND t.device_id = $2""",
        project_id,
        device_id,
    )
    reported = {
        held.attribute: msgspec.json.decode(held.value) for held in await current.of_device(conn, project_id, device_id)
    }
    if row is None:
        return Twin({}, 0, None, reported, None, None)
    standing = None
    if row["state"] is not None:
        standing = Standing(CommandState(row["state"]), row["reason"], row["state_time"])
    return Twin(_decode(row["desired"]), row["version"], row["changed"], reported, row["command_id"], standing)


async def change(
    conn: Connection,
    project_id: str,
    device_id: int,
    patch: dict[str, Any],
    now_ms: int,
    expected_version: int | None = None,
) -> Twin:
    """Merges the patch (RFC 7386) and sends what is not reported as desired; only the newest version waits for the
    device. Raises NotFoundError, ChangedError, TooLargeError, commands.TooManyError."""
    found = await conn.fetchval(
        "SELECT id FROM device WHERE project_id = $1 AND id = $2 FOR NO KEY UPDATE", project_id, device_id
    )
    if found is None:
        raise NotFoundError("device", device_id)
    held = await get(conn, project_id, device_id)
    if expected_version is not None and expected_version != held.version:
        raise ChangedError("twin of device", device_id, expected_version, held.version)
    desired = merge_patch(held.desired, patch)
    encoded = msgspec.json.encode(desired)
    if len(encoded) > DESIRED_BYTES_MAX:
        raise TooLargeError(len(encoded))
    version = held.version + 1
    wanted = delta(desired, held.reported)
    await commands.supersede(conn, project_id, device_id, COMMAND, SUPERSEDED, now_ms)
    command_id = None
    if wanted:
        row = await commands.create(
            conn,
            project_id,
            device_id,
            name=COMMAND,
            payload=msgspec.json.encode({"version": version, "desired": wanted}),
            deadline=now_ms + DEADLINE_MS,
            now_ms=now_ms,
        )
        command_id = row.id
    await conn.execute(
        """INSERT INTO twin (project_id, device_id, desired, version, changed, command_id)
           VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (device_id) DO UPDATE SET desired = excluded.desired,
               version = excluded.version, changed = excluded.changed, command_id = excluded.command_id""",
        project_id,
        device_id,
        encoded.decode(),
        version,
        now_ms,
        command_id,
    )
    return await get(conn, project_id, device_id)
