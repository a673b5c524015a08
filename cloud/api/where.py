"""Where a message is, and what happens to it next."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Response
from pydantic import BaseModel, Field

from cloud import where
from cloud.api.context import Context
from cloud.api.pages import raw_json
from cloud.api.problems import invalid
from cloud.api.routing import resource
from cloud.api.tenancy import InProject
from cloud.api.times import time_ms
from cloud.model.where import STATES
from sync.registry import Alias

router = resource("/where", "data")


class Place(BaseModel):
    state: str = Field(description=f"One of: {', '.join(STATES)}.", examples=["inbox"])
    text: str = Field(examples=["it waits in the inbox: no device has the alias demo:serial:bench-02"])
    since_time: int | None = Field(description="Since when it is there; null: not known.")
    next: str = Field(
        description="What to do, or what happens next; empty: nothing.",
        examples=["create the device (POST /api/v1/devices): its messages are stored by themselves"],
    )
    certain: bool = Field(description="False: it may be there.")
    facts: dict[str, Any] = Field(description="What it is known by.")


class Places(BaseModel):
    count: int
    items: list[Place]


@router.get("", responses={200: {"model": Places}})
async def get_where(
    context: Context,
    tenant: InProject,
    id: Annotated[  # the parameter's name
        str | None,
        Query(max_length=80, description="A message's id, or a record as `epoch/number`, as the API shows them."),
    ] = None,
    device: Annotated[
        str | None, Query(max_length=400, description="Without an id: whose message, as `network:key:alias`.")
    ] = None,
    time: Annotated[
        str | None,
        Query(description="And its time, as device or gateway gave it: RFC 3339 or Unix milliseconds."),
    ] = None,
) -> Response:
    """Told from what is stored: the gateway's log (as it said last), the link, a stream, inbox, rejects, dead letters,
    history, a gap. For a device and a time, what is certain, else all places where it may be."""
    if id is not None:
        if device is not None or time is not None:
            raise invalid("id", "goes with neither device nor time")
        try:
            places = await where.by_id(tenant, tenant.project_id, id)
        except ValueError:
            remedy = "give a message's id or a record as epoch/number, as history, inbox and rejects show them"
            raise invalid("id", f"{id!r} is no message and no record", remedy=remedy) from None
    else:
        if device is None or time is None:
            raise invalid("id" if device is None else "time", "is missing", remedy="give an id, or a device and a time")
        parts = device.split(":", 2)
        if len(parts) != 3 or not all(parts):
            raise invalid("device", f"{device!r} is no alias", remedy="write it as network:key:alias")
        places = await where.by_device(tenant, tenant.project_id, Alias(*parts), time_ms(time, "time"))
    return raw_json({"count": len(places), "items": places})
