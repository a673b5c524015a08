"""Devices' comings and goings."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request
from pydantic import Field

from cloud.api.context import Context
from cloud.api.fields import Resource
from cloud.api.pages import Cursor, Limit, Page, decode_cursor, make_page
from cloud.api.routing import needs, resource
from cloud.api.tenancy import InProject, device_at
from cloud.db import presence
from cloud.db.presence import PresenceRow

router = resource("/events", "data")


class DeviceEvent(Resource):
    seq: int = Field(examples=[4711])
    device_id: int | None = Field(description="The device that has this name now; null: nobody.", examples=[17])
    network_id: str = Field(examples=["demo"])
    alias_key: str = Field(examples=["serial"])
    alias: str = Field(examples=["bench-01"])
    gateway_id: str | None = Field(examples=["quay-1"])
    listener: str = Field(description="Of the gateway.", examples=["mqtt"])
    online: bool
    reason: str = Field(examples=["keep-alive missed"])
    time: int = Field(description="Unix milliseconds.", examples=[1772353860012])


class DevicePresence(Resource):
    online: bool | None = Field(description="null: its gateway is not connected, so nobody knows.", examples=[True])
    reason: str = Field(description="How it came to that.", examples=["connected"])
    since: int = Field(description="When its gateway saw it, Unix milliseconds.", examples=[1772353860012])
    network_id: str = Field(examples=["demo"])
    alias_key: str = Field(examples=["serial"])
    alias: str = Field(examples=["bench-01"])
    gateway_id: str | None = Field(examples=["quay-1"])
    listener: str = Field(examples=["mqtt"])


@router.get("", openapi_extra=needs("list", anywhere=True))
async def list_events(
    request: Request,
    context: Context,
    tenant: InProject,
    device: Annotated[
        str | None, Query(max_length=600, description="Its id, or `network:key:alias`.", examples=["17"])
    ] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[DeviceEvent]:
    """The newest first, by when they came here: those that a gateway kept while its link was down come later."""
    device_id = None
    if device is None:
        tenant.need("list")
    else:
        device_id = (await device_at(request, context, tenant.principal, device, tenant.project_id)).id
    after = decode_cursor(cursor, int)
    async with tenant.connection() as conn:
        rows = await presence.page(conn, tenant.project_id, device_id=device_id, after=after, limit=limit + 1)
    return make_page(rows, limit, lambda row: row.seq, DeviceEvent.model_validate)


def presence_shown(row: PresenceRow) -> DevicePresence:
    """What the device's gateway said last, as long as that can still be true."""
    shown = DevicePresence.model_validate(row)
    if not row.online or row.gateway_is_there:
        return shown
    gone = f"gateway {row.gateway_id} is not connected; it said: {row.reason}"
    return shown.model_copy(update={"online": None, "reason": gone})
