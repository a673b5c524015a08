"""Twins: attributes as desired, as reported, and what is between."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from fastapi import Body, Response
from pydantic import BaseModel, Field

from cloud.api.context import Context
from cloud.api.etag import ExpectedRevision, set_etag
from cloud.api.problems import Problem, invalid
from cloud.api.routing import needs, resource
from cloud.api.tenancy import AtDevice
from cloud.db import commands, devices, twins
from cloud.db.commands import TooManyError
from cloud.db.twins import Twin as TwinRow
from cloud.model.twin import DEPTH_MAX, depth
from protocols.messages import CommandState

router = resource("/devices", "commands")

PATCH_BYTES_MAX: Final = 16 * 1024
"""Of one change: hundreds of settings."""

Patch = Annotated[
    dict[str, Any],
    Body(description="RFC 7386: what is given is merged into the desired attributes; null removes one.",
         examples=[{"setpoint": 21.5, "mode": None}]),
]  # fmt: skip


class TwinCommand(BaseModel):
    id: str
    state: CommandState | None = Field(examples=["delivered"])
    reason: str = Field(examples=[""])


class Twin(BaseModel):
    device: int = Field(examples=[17])
    version: int = Field(description="Rises with each change; its ETag. 0: nothing was ever desired.", examples=[3])
    desired: dict[str, Any] = Field(examples=[{"setpoint": 21.5}])
    reported: dict[str, Any] = Field(description="The attributes' current values.", examples=[{"setpoint": 20}])
    delta: dict[str, Any] = Field(
        description="Desired, and not reported so; the device is sent all of it.", examples=[{"setpoint": 21.5}]
    )
    changed_time: int | None = Field(description="Unix milliseconds; null: never.", examples=[1772353860012])
    command: TwinCommand | None = Field(description="The last command `twin`; null: there was nothing to send.")


@router.get("/{device}/twin")
async def get_twin(context: Context, at: AtDevice, response: Response) -> Twin:
    """Attributes as desired, as reported, and what is between."""
    async with at.tenant.transaction(isolation="repeatable_read", readonly=True) as conn:
        await devices.get(conn, *at.place)
        row = await twins.get(conn, *at.place)
    return _shown(at.id, row, response)


@router.patch("/{device}/twin", openapi_extra=needs("command"))
async def change_twin(
    context: Context, at: AtDevice, patch: Patch, expected: ExpectedRevision, response: Response
) -> Twin:
    """What is not reported as desired is sent to the device, as command `twin` with
    `{"version": …, "desired": {…}}`. While the device is away, only the newest version waits."""
    now_ms = context.wall_ms()
    if len(msgspec.json.encode(patch)) > PATCH_BYTES_MAX:
        raise invalid("body", "is too large", limit=PATCH_BYTES_MAX)
    if depth(patch) > DEPTH_MAX:
        raise invalid("body", "is nested too deeply", limit=DEPTH_MAX)
    try:
        row = await at.tenant.run(lambda conn: twins.change(conn, *at.place, patch, now_ms, expected))
    except twins.TooLargeError as error:
        raise invalid("body", str(error), limit=twins.DESIRED_BYTES_MAX) from None
    except TooManyError as error:
        raise Problem(
            409, "too-many-commands", "Too many commands", str(error), limit=commands.OPEN_MAX,
            remedy="wait until they are delivered or expire, or cancel some",
        ) from None  # fmt: skip
    return _shown(at.id, row, response)


def _shown(device_id: int, row: TwinRow, response: Response) -> Twin:
    set_etag(response, row.version)
    command = None
    if row.command_id is not None and row.standing is not None:
        command = TwinCommand(id=str(row.command_id), state=row.standing.state, reason=row.standing.reason)
    return Twin(
        device=device_id,
        version=row.version,
        desired=row.desired,
        reported=row.reported,
        delta=row.delta,
        changed_time=row.changed,
        command=command,
    )
