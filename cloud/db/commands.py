"""Commands: rows, the gateway that each goes by, and what became of it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Final

import asyncpg
import msgspec

from cloud.db import standings
from cloud.db.database import Connection
from cloud.db.errors import NotFoundError, RowError
from cloud.model import command as model
from cloud.model.command import Answer, Standing
from protocols.messages import Command, CommandState

CHANNEL: Final = "command"
"""The NOTIFY channel; the payload is `project/gateway`."""
OPEN_MAX: Final = 1000
"""Commands of one device that are pending or sent: more than anybody means, less than a loop gone wild makes."""
TELL_AGAIN_MS: Final = 30_000
"""A gateway that has not said that it has a command is told once more: its disk did not take it, perhaps."""
TAKEN_MAX: Final = 64
"""Commands put on a link in one go."""
SWEPT_MAX: Final = 500
"""Rows that one look after deadlines, or after gateways, changes."""
WORD_MS: Final = 60_000
"""How long after its deadline a command that a gateway may have waits for the gateway's word."""

_COLUMNS: Final = (
    "id, project_id, device_id, seq, name, payload, deadline, created, gateway_id, told_at, state, reason, state_time, "
    "answer, answer_time"
)
CANCELLED: Final = "cancelled before a gateway was told of it"


class CommandRow(msgspec.Struct, frozen=True):
    id: uuid.UUID
    project_id: str
    device_id: int
    seq: int
    name: str
    payload: bytes
    deadline: int
    created: int
    gateway_id: str | None
    told_at: int | None
    standing: Standing
    answer: bytes | None
    answer_time: int | None


class Report(msgspec.Struct, frozen=True):
    """What a gateway says of a command."""

    command_id: str
    state: CommandState
    reason: str
    time: int


class TooManyError(RowError):
    def __init__(self) -> None:
        super().__init__(f"{OPEN_MAX} commands of this device are pending or sent")


class NotPendingError(RowError):
    def __init__(self, state: str) -> None:
        super().__init__(f"the command is {state}: a gateway was told of it, or it has ended")


async def create(
    conn: Connection,
    project_id: str,
    device_id: int,
    *,
    name: str,
    payload: bytes,
    deadline: int,
    now_ms: int,
) -> CommandRow:
    """Whoever tells its gateway is woken. Raises NotFoundError (the device), TooManyError."""
    found = await conn.fetchval(
        "SELECT id FROM device WHERE project_id = $1 AND id = $2 FOR NO KEY UPDATE", project_id, device_id
    )
    if found is None:
        raise NotFoundError("device", device_id)
    count = await conn.fetchval(
        """SELECT count(*) FROM command WHERE project_id = $1 AND device_id = $2 AND state IN ('pending', 'sent')""",
        project_id,
        device_id,
    )
    if count >= OPEN_MAX:
        raise TooManyError
    gateway_id = await gateway_of(conn, project_id, device_id)
    row = await conn.fetchrow(
        f"""INSERT INTO command (id, project_id, device_id, name, payload, deadline, created, gateway_id, state_time)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $7) RETURNING {_COLUMNS}""",
        uuid.uuid4(),
        project_id,
        device_id,
        name,
        payload,
        deadline,
        now_ms,
        gateway_id,
    )
    if gateway_id is not None:
        await notify(conn, project_id, gateway_id)
    assert row is not None
    return _command(row)


async def gateway_of(conn: Connection, project_id: str, device_id: int) -> str | None:
    """The gateway that saw the device last: the one that said last that it is there, else the one that carried one of
    its last messages. None: nobody has."""
    gateway_id: str | None = await conn.fetchval(
        """SELECT s.gateway_id FROM alias a
           JOIN presence p USING (project_id, network_id, alias_key, alias) JOIN source s ON s.id = p.source_id
           WHERE a.project_id = $1 AND a.device_id = $2 ORDER BY p.online DESC, p.since DESC LIMIT 1""",
        project_id,
        device_id,
    )
    if gateway_id is not None:
        return gateway_id
    return next(iter((await standings.carriers(conn, project_id, device_id)).values()), None)


async def get(conn: Connection, project_id: str, device_id: int, command_id: uuid.UUID) -> CommandRow:
    """Raises NotFoundError."""
    row = await conn.fetchrow(
        f"SELECT {_COLUMNS} FROM command WHERE project_id = $1 AND device_id = $2 AND id = $3",
        project_id,
        device_id,
        command_id,
    )
    if row is None:
        raise NotFoundError("command", command_id)
    return _command(row)


async def page(
    conn: Connection,
    project_id: str,
    device_id: int,
    *,
    state: CommandState | None = None,
    after: int | None = None,
    limit: int,
) -> list[CommandRow]:
    """Newest first; those older than number `after` only."""
    found = await conn.fetch(
        f"""SELECT {_COLUMNS} FROM command WHERE project_id = $1 AND device_id = $2
            AND ($3::text IS NULL OR state = $3) AND ($4::bigint IS NULL OR seq < $4) ORDER BY seq DESC LIMIT $5""",
        project_id,
        device_id,
        state,
        after,
        limit,
    )
    return [_command(row) for row in found]


async def cancel(conn: Connection, project_id: str, device_id: int, command_id: uuid.UUID, now_ms: int) -> CommandRow:
    """Fails a command that no gateway was told of. Raises NotFoundError, NotPendingError."""
    row = await conn.fetchrow(
        f"SELECT {_COLUMNS} FROM command WHERE project_id = $1 AND device_id = $2 AND id = $3 FOR UPDATE",
        project_id,
        device_id,
        command_id,
    )
    if row is None:
        raise NotFoundError("command", command_id)
    held = _command(row)
    if held.standing.state is not CommandState.PENDING or held.told_at is not None:
        raise NotPendingError(held.standing.state)
    standing = model.reported(held.standing, CommandState.FAILED, CANCELLED, now_ms)
    await _write(conn, [(command_id, standing)])
    return msgspec.structs.replace(held, standing=standing)


async def supersede(conn: Connection, project_id: str, device_id: int, name: str, reason: str, now_ms: int) -> None:
    """Fails the device's commands of that name that no gateway was told of. (Of those that one was told of, the gateway
    keeps the newest.)"""
    found = await conn.fetch(
        """SELECT id, state, reason, state_time, answer FROM command WHERE project_id = $1 AND device_id = $2
           AND name = $3 AND state = 'pending' AND told_at IS NULL ORDER BY id FOR UPDATE""",
        project_id,
        device_id,
        name,
    )
    failed = [(row["id"], model.reported(_standing(row), CommandState.FAILED, reason, now_ms)) for row in found]
    await _write(conn, failed)


async def take(conn: Connection, project_id: str, gateway_id: str, session: uuid.UUID, now_ms: int) -> list[Command]:
    """What is to be put on this connection now, in order, and counts as told: what the gateway has not said it has.
    Nothing where another connection speaks for the gateway by now. What was told before is told beyond its deadline,
    too: the gateway knows what became of it."""
    found = await conn.fetch(
        """UPDATE command SET told_session = $3, told_at = $4 WHERE id IN (
               SELECT c.id FROM command c JOIN gateway g ON g.project_id = c.project_id AND g.id = c.gateway_id
               WHERE c.project_id = $1 AND c.gateway_id = $2 AND c.state IN ('pending', 'sent')
               AND c.held_by IS DISTINCT FROM c.gateway_id AND g.link_session = $3
               AND (c.told_at IS NOT NULL OR c.deadline > $4)
               AND (c.told_session IS DISTINCT FROM $3 OR c.told_at < $4 - $5)
               ORDER BY c.seq LIMIT $6 FOR UPDATE OF c SKIP LOCKED)
           RETURNING id, seq, device_id, name, payload, deadline""",
        project_id,
        gateway_id,
        session,
        now_ms,
        TELL_AGAIN_MS,
        TAKEN_MAX,
    )
    return [
        Command(str(row["id"]), row["device_id"], row["name"], row["payload"], row["deadline"])
        for row in sorted(found, key=lambda row: row["seq"])
    ]


async def report(conn: Connection, project_id: str, gateway_id: str, reports: Sequence[Report]) -> None:
    """What a gateway says, which means that it has them. Commands that there are not (any more) are passed over."""
    held = await _lock(conn, project_id, [one.command_id for one in reports])
    changed: dict[uuid.UUID, Standing] = {}
    for one in reports:
        command_id = _uuid(one.command_id)
        if command_id in held:
            standing = model.reported(held[command_id], one.state, one.reason, one.time)
            if standing is not held[command_id]:
                held[command_id] = changed[command_id] = standing
    await _write(conn, list(changed.items()))
    await conn.execute(
        """UPDATE command SET held_by = $2
           WHERE id = ANY($1::uuid[]) AND gateway_id = $2 AND held_by IS DISTINCT FROM $2""",
        list(held),
        gateway_id,
    )


async def answer(conn: Connection, project_id: str, answers: Sequence[Answer]) -> list[Answer]:
    """The first answer to each command is kept, if it comes from the command's own device; those that do not are
    returned."""
    held = await _lock(conn, project_id, [one.command_id for one in answers])
    strays: list[Answer] = []
    for one in answers:
        command_id = _uuid(one.command_id)
        if command_id is None or command_id not in held:
            strays.append(one)
            continue
        if held[command_id].answered:
            continue
        standing = model.answered(held[command_id], one.refusal, one.time)
        status = await conn.execute(
            """UPDATE command SET state = $3, reason = $4, state_time = $5, answer = $6, answer_time = $5
               WHERE project_id = $1 AND id = $2 AND EXISTS (
                   SELECT FROM alias a WHERE a.project_id = $1 AND a.network_id = $7 AND a.alias_key = $8
                   AND a.alias = $9 AND a.device_id = command.device_id)""",
            project_id,
            command_id,
            standing.state,
            standing.reason,
            standing.time,
            one.payload,
            one.network_id,
            one.alias_key,
            one.alias,
        )
        if status == "UPDATE 1":
            held[command_id] = standing
        else:
            strays.append(one)
    return strays


async def expire(conn: Connection, now_ms: int) -> int:
    """Ends what is past its deadline: at once what no gateway was told of, a while later what a gateway may have and
    says nothing about. How many."""
    found = await conn.fetch(
        """SELECT id, told_at, gateway_id, state, reason, state_time, answer FROM command
           WHERE state IN ('pending', 'sent') AND deadline <= $1
           AND (told_at IS NULL OR deadline <= $1 - $2) ORDER BY deadline LIMIT $3 FOR UPDATE SKIP LOCKED""",
        now_ms,
        WORD_MS,
        SWEPT_MAX,
    )
    changed = []
    for row in found:
        if row["told_at"] is not None:
            reason = f"no word from gateway {row['gateway_id']} that it was delivered; it may have been"
        elif row["gateway_id"] is not None:
            reason = f"gateway {row['gateway_id']} was not connected in time"
        else:
            reason = "no gateway has seen the device"
        changed.append((row["id"], model.reported(_standing(row), CommandState.EXPIRED, reason, now_ms)))
    await _write(conn, changed)
    return len(changed)


async def find_gateways(conn: Connection, now_ms: int) -> None:
    """For commands that wait without one, and for those whose device has come up at another one since."""
    moved = await conn.fetch(
        """SELECT DISTINCT ON (c.project_id, c.device_id) c.project_id, c.device_id, s.gateway_id
           FROM command c JOIN alias a ON a.project_id = c.project_id AND a.device_id = c.device_id
           JOIN presence p ON p.project_id = a.project_id AND p.network_id = a.network_id
               AND p.alias_key = a.alias_key AND p.alias = a.alias
           JOIN source s ON s.id = p.source_id
           WHERE c.state IN ('pending', 'sent') AND c.deadline > $1 AND p.online
           ORDER BY c.project_id, c.device_id, p.since DESC""",
        now_ms,
    )
    found = {(row["project_id"], row["device_id"]): row["gateway_id"] for row in moved}
    lost = await conn.fetch(
        """SELECT DISTINCT project_id, device_id FROM command
           WHERE state = 'pending' AND gateway_id IS NULL AND deadline > $1 LIMIT $2""",
        now_ms,
        SWEPT_MAX,
    )
    for row in lost:
        name = (row["project_id"], row["device_id"])
        if name not in found:
            found[name] = await gateway_of(conn, *name)
    for (project_id, device_id), gateway_id in found.items():
        if gateway_id is not None:
            await move(conn, project_id, device_id, gateway_id)


async def move(conn: Connection, project_id: str, device_id: int, gateway_id: str) -> None:
    """The device was seen at this gateway: what is not delivered goes by it from now on. Another gateway that has it
    already may send it too, should the device come back there: it has one id, and the device runs it once."""
    status = await conn.execute(
        """UPDATE command SET gateway_id = $3, told_session = NULL WHERE id IN (
               SELECT id FROM command WHERE project_id = $1 AND device_id = $2 AND state IN ('pending', 'sent')
               AND gateway_id IS DISTINCT FROM $3 ORDER BY seq FOR UPDATE)""",
        project_id,
        device_id,
        gateway_id,
    )
    if status != "UPDATE 0":
        await notify(conn, project_id, gateway_id)


async def begin_session(conn: Connection, project_id: str, gateway_id: str, session: uuid.UUID) -> None:
    """From now on this connection speaks for the gateway, and no earlier one."""
    await conn.execute(
        "UPDATE gateway SET link_session = $3 WHERE project_id = $1 AND id = $2", project_id, gateway_id, session
    )


async def end_session(conn: Connection, project_id: str, gateway_id: str, session: uuid.UUID) -> None:
    """The connection is gone; another one that was opened meanwhile goes on to speak for the gateway."""
    await conn.execute(
        "UPDATE gateway SET link_session = NULL WHERE project_id = $1 AND id = $2 AND link_session = $3",
        project_id,
        gateway_id,
        session,
    )


async def notify(conn: Connection, project_id: str, gateway_id: str) -> None:
    await conn.execute("SELECT pg_notify($1, $2)", CHANNEL, f"{project_id}/{gateway_id}")


async def _lock(conn: Connection, project_id: str, command_ids: Sequence[str]) -> dict[uuid.UUID, Standing]:
    known = {found for text in command_ids if (found := _uuid(text)) is not None}
    rows = await conn.fetch(
        """SELECT id, state, reason, state_time, answer FROM command WHERE project_id = $1 AND id = ANY($2::uuid[])
           ORDER BY id FOR UPDATE""",
        project_id,
        list(known),
    )
    return {row["id"]: _standing(row) for row in rows}


async def _write(conn: Connection, changed: Sequence[tuple[uuid.UUID, Standing]]) -> None:
    await conn.executemany(
        "UPDATE command SET state = $2, reason = $3, state_time = $4 WHERE id = $1",
        [(command_id, one.state, one.reason, one.time) for command_id, one in changed],
    )


def _uuid(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None


def _standing(row: asyncpg.Record) -> Standing:
    return Standing(CommandState(row["state"]), row["reason"], row["state_time"], row["answer"] is not None)


def _command(row: asyncpg.Record | None) -> CommandRow:
    if row is None:
        raise AssertionError("INSERT … RETURNING gives a row")
    return CommandRow(
        row["id"], row["project_id"], row["device_id"], row["seq"], row["name"], row["payload"], row["deadline"],
        row["created"], row["gateway_id"], row["told_at"], _standing(row), row["answer"], row["answer_time"],
    )  # fmt: skip
