"""Current values."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec
from fastapi import Response
from pydantic import BaseModel, Field

from cloud.api.context import Context
from cloud.api.pages import raw_json
from cloud.api.routing import resource
from cloud.api.tenancy import AtDevice
from cloud.db import blueprints, current
from cloud.model.fitting import untold

router = resource("/devices", "data")


class CurrentValue(BaseModel):
    value: Any = Field(examples=[71.5])
    event_time: int = Field(description="Unix milliseconds.", examples=[1772353800000])
    received_time: int = Field(description="Unix milliseconds, by the gateway.", examples=[1772353800012])
    id: str = Field(description="The message that brought it.", examples=["5f1c8a52-6f5e-4c8b-9d5e-000000000000"])


class Current(BaseModel):
    device: int = Field(description="Its id.", examples=[17])
    attributes: dict[str, CurrentValue]
    defaults: dict[str, Any] = Field(
        description="What its blueprint says of attributes that it has not told.", examples=[{"setpoint": 20.0}]
    )


@router.get("/{device}/current", responses={200: {"model": Current}})
async def get_current(context: Context, at: AtDevice) -> Response:
    """Each attribute's newest value: by event time, then received time, then message id."""
    async with at.tenant.connection() as conn:
        rows = await current.of_device(conn, *at.place)
        declared = await blueprints.attributes_of_device(conn, *at.place)
    attributes = {
        row.attribute: {
            "value": msgspec.Raw(row.value),
            "event_time": row.event_time,
            "received_time": row.received_time,
            "id": str(uuid.UUID(bytes=row.id)),
        }
        for row in rows
    }
    defaults = untold({row.attribute: row.value for row in rows}, declared)
    return raw_json({"device": at.id, "attributes": attributes, "defaults": defaults})
