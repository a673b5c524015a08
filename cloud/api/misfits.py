"""Values that did not fit their device's blueprint."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query
from pydantic import Field

from cloud.api.context import Context
from cloud.api.fields import Resource
from cloud.api.pages import LIMIT_MAX, Cursor, Limit, Page, decode_cursor, make_page
from cloud.api.routing import resource
from cloud.api.tenancy import AtDevice
from cloud.db import misfits

router = resource("/devices", "data")


class Misfit(Resource):
    seq: int = Field(examples=[4711])
    id: str = Field(description="The message that it was left out of.")
    event_time: int = Field(description="Of that message, Unix milliseconds.", examples=[1772353800000])
    attribute: str = Field(description="Its path; empty: several, that are only counted.", examples=["temperature"])
    code: str = Field(description="`type`, `range`, `enumeration`; `more`: several.", examples=["range"])
    reason: str = Field(examples=["temperature: 900 is above the maximum 120"])
    value: str = Field(description="As it came, JSON; cut where it is long.", examples=["900"])
    count: int = Field(description="Values that this is about.", examples=[1])


class MisfitCount(Resource):
    attribute: str = Field(examples=["temperature"])
    count: int = Field(description="Values that were ever left out.", examples=[12])
    newest: int = Field(description="The newest event time of such a message, Unix milliseconds.")


class MisfitCounts(Resource):
    count: int
    items: list[MisfitCount]
    next: None = None


@router.get("/{device}/misfits")
async def list_misfits(context: Context, at: AtDevice, limit: Limit = 100, cursor: Cursor = None) -> Page[Misfit]:
    """Values that did not fit the device's blueprint and were left out of their messages, with the reason, the newest
    first. The project's newest 10,000 are kept."""
    async with at.tenant.connection() as conn:
        rows = await misfits.page(conn, *at.place, after=decode_cursor(cursor, int), limit=limit + 1)
    return make_page(rows, limit, lambda row: row.seq, Misfit.model_validate)


@router.get("/{device}/misfits/counts")
async def count_misfits(
    context: Context,
    at: AtDevice,
    limit: Annotated[int, Query(ge=1, le=LIMIT_MAX, description="Most attributes to give.")] = LIMIT_MAX,
) -> MisfitCounts:
    """How many values of each attribute were ever left out."""
    async with at.tenant.connection() as conn:
        rows = await misfits.counts(conn, *at.place, limit)
    return MisfitCounts(count=len(rows), items=[MisfitCount.model_validate(row) for row in rows])
