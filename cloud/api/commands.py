"""Commands to devices: made, looked at, cancelled."""

from __future__ import annotations

import base64
import binascii
import uuid
from typing import Annotated, Any, Final

import msgspec
from fastapi import Query, Response
from pydantic import BaseModel, Field

from cloud.api.context import Context
from cloud.api.fields import Body
from cloud.api.pages import Cursor, Limit, Page, decode_cursor, raw_json, raw_page
from cloud.api.problems import Problem, invalid
from cloud.api.routing import needs, resource
from cloud.api.tenancy import AtDevice
from cloud.db import commands
from cloud.db.commands import CommandRow, NotPendingError, TooManyError
from cloud.db.database import Connection
from protocols.limits import COMMAND_PAYLOAD_BYTES_MAX
from protocols.messages import CommandState

router = resource("/devices", "commands")

NAME_PATTERN: Final = r"^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$"
"""Stands in MQTT topics and CoAP paths."""
NAME_CHARACTERS_MAX: Final = 64
TIMEOUT_S: Final = 3600
TIMEOUT_S_MAX: Final = 30 * 86_400
"""A command that is older than a month is of another time."""


class NewCommand(Body):
    name: str = Field(
        pattern=NAME_PATTERN,
        max_length=NAME_CHARACTERS_MAX,
        description="What the device is to do: letters, digits, `_`, `.`, `-`, in levels by `/`.",
        examples=["restart"],
    )
    payload: Any = Field(default=None, description="JSON; sent as its text.", examples=[{"delay_s": 5}])
    payload_base64: str | None = Field(default=None, description="Any bytes, instead of `payload`.")
    timeout_s: float | None = Field(
        default=None, gt=0, le=TIMEOUT_S_MAX, description=f"From now to the deadline; {TIMEOUT_S} if there is neither."
    )
    deadline: int | None = Field(
        default=None, description="Unix milliseconds by the cloud's clock: it does not reach the device after that."
    )


class CommandAnswer(BaseModel):
    time: int = Field(description="When the gateway received it.", examples=[1772353861400])
    payload: Any = Field(description="As JSON; null where it is none.", examples=[{"ok": True}])
    payload_base64: str


class Command(BaseModel):
    id: str = Field(examples=["0d3f5f0e-0a52-4b8e-9a7e-52d4cf5f3d11"])
    device: int = Field(examples=[17])
    name: str = Field(examples=["restart"])
    payload: Any = Field(description="As JSON; null where it is none.", examples=[{"delay_s": 5}])
    payload_base64: str
    deadline: int = Field(examples=[1772357460000])
    created_time: int = Field(examples=[1772353860000])
    gateway_id: str | None = Field(
        description="It goes by this gateway, which saw the device last; null: none has seen it yet.",
        examples=["quay-1"],
    )
    state: CommandState = Field(
        description="pending: no gateway has said that it has it. sent: a gateway has it durably. delivered: the "
        "device's protocol acknowledged it. acknowledged: the device said that it did it. failed, expired: `reason` "
        "says why. A state gives way only to one that more is known for.",
        examples=["delivered"],
    )
    reason: str = Field(examples=[""])
    state_time: int = Field(description="When it came to this state.", examples=[1772353861200])
    cancellable: bool = Field(description="No gateway was told of it yet.", examples=[False])
    answer: CommandAnswer | None = Field(description="The device's own, once there is one.")


@router.post("/{device}/commands", openapi_extra=needs("command"), status_code=201, responses={201: {"model": Command}})
async def create_command(context: Context, at: AtDevice, body: NewCommand) -> Response:
    """It waits while device or gateway are away, up to its deadline, and keeps its id however often it is sent: the
    device runs it once."""
    now_ms = context.wall_ms()
    payload, deadline = _payload(body), _deadline(body, now_ms)

    async def create(conn: Connection) -> CommandRow:
        return await commands.create(conn, *at.place, name=body.name, payload=payload, deadline=deadline, now_ms=now_ms)

    try:
        row = await at.tenant.run(create)
    except TooManyError as error:
        raise Problem(
            409,
            "too-many-commands",
            "Too many commands",
            str(error),
            limit=commands.OPEN_MAX,
            remedy="wait until they are delivered or expire, or cancel some",
        ) from None
    answer = raw_json(_shown(row))
    answer.status_code = 201
    return answer


@router.get("/{device}/commands", responses={200: {"model": Page[Command]}})
async def list_commands(
    context: Context,
    at: AtDevice,
    state: Annotated[CommandState | None, Query(description="Those in this state only.")] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Response:
    """The newest first."""
    async with at.tenant.connection() as conn:
        rows = await commands.page(conn, *at.place, state=state, after=decode_cursor(cursor, int), limit=limit + 1)
    return raw_page(rows, limit, lambda row: row.seq, _shown)


@router.get("/{device}/commands/{command_id}", responses={200: {"model": Command}})
async def get_command(context: Context, at: AtDevice, command_id: uuid.UUID) -> Response:
    """One command, and what is known of it."""
    async with at.tenant.connection() as conn:
        return raw_json(_shown(await commands.get(conn, *at.place, command_id)))


@router.post(
    "/{device}/commands/{command_id}/cancel", openapi_extra=needs("command"), responses={200: {"model": Command}}
)
async def cancel_command(context: Context, at: AtDevice, command_id: uuid.UUID) -> Response:
    """Possible until a gateway is told of it (`cancellable`); it fails, and never reaches the device."""
    now_ms = context.wall_ms()
    try:
        row = await at.tenant.run(lambda conn: commands.cancel(conn, *at.place, command_id, now_ms))
    except NotPendingError as error:
        raise Problem(409, "not-pending", "Not to be cancelled", str(error), remedy="let it expire") from None
    return raw_json(_shown(row))


def _payload(body: NewCommand) -> bytes:
    if body.payload_base64 is None:
        payload = msgspec.json.encode(body.payload) if "payload" in body.model_fields_set else b""
    elif "payload" in body.model_fields_set:
        raise invalid("payload_base64", "stands beside payload", remedy="give one of them")
    else:
        try:
            payload = base64.b64decode(body.payload_base64, validate=True)
        except (binascii.Error, ValueError):
            raise invalid("payload_base64", "is no base64") from None
    if len(payload) > COMMAND_PAYLOAD_BYTES_MAX:
        raise invalid("payload", f"has {len(payload):,} bytes", limit=COMMAND_PAYLOAD_BYTES_MAX)
    return payload


def _deadline(body: NewCommand, now_ms: int) -> int:
    if body.deadline is None:
        return now_ms + round(1000 * (TIMEOUT_S if body.timeout_s is None else body.timeout_s))
    if body.timeout_s is not None:
        raise invalid("deadline", "stands beside timeout_s", remedy="give one of them")
    if not now_ms < body.deadline <= now_ms + 1000 * TIMEOUT_S_MAX:
        raise invalid("deadline", f"is not within {TIMEOUT_S_MAX // 86_400} days from now ({now_ms})")
    return body.deadline


def _shown(row: CommandRow) -> dict[str, Any]:
    standing = row.standing
    return {
        "id": str(row.id),
        "device": row.device_id,
        "name": row.name,
        **_bytes_shown(row.payload),
        "deadline": row.deadline,
        "created_time": row.created,
        "gateway_id": row.gateway_id,
        "state": standing.state.value,
        "reason": standing.reason,
        "state_time": standing.time,
        "cancellable": standing.state is CommandState.PENDING and row.told_at is None,
        "answer": None if row.answer is None else {"time": row.answer_time, **_bytes_shown(row.answer)},
    }


def _bytes_shown(data: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        value = None
    return {"payload": value, "payload_base64": base64.b64encode(data).decode()}
