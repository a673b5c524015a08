"""Points: what attributes were in each message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

import msgspec
from fastapi import Depends, Query, Response
from pydantic import BaseModel, Field

from cloud import series
from cloud.api.history import EventRange
from cloud.api.pages import Page, decode_cursor, text_page
from cloud.api.routing import needs, resource
from cloud.api.rows import Wanted, WantedRows, answer, responses
from cloud.api.series import Filters, Paths, as_problem, scope_by
from cloud.api.tenancy import AtDevice, InProject, InSystem, SystemPath, Tenant
from cloud.db import systems
from cloud.db.points import VALUES_AT, Place, PointRow, place_of
from cloud.model.buckets import AskedError
from cloud.model.series import PointsQuestion, parse_filters, parse_paths
from cloud.series import DEVICES_MAX, STEP_ROWS, Scope

router = resource("", "data")


class PointsRow(BaseModel):
    device: int = Field(description="Its id.", examples=[17])
    event_time: int = Field(description="Unix milliseconds.", examples=[1772353800000])
    id: str = Field(description="The message's.", examples=["5f1c8a52-6f5e-4c8b-9d5e-000000000000"])
    values: dict[str, Any] = Field(
        description="What it has of the paths, as these were written.", examples=[{"temperature": 71.5}]
    )


class Asked(msgspec.Struct, frozen=True):
    question: PointsQuestion
    names: tuple[str, ...]
    """The paths as they were written."""
    descending: bool


def _asked(
    path: Paths,
    wanted: EventRange,
    filter: Filters = None,
    order: Annotated[
        Literal["asc", "desc"], Query(description="Of a device's points, by event time; desc: the newest first.")
    ] = "asc",
) -> Asked:
    try:
        paths, filters = parse_paths(path), parse_filters(filter or ())
    except AskedError as error:
        raise as_problem(error) from None
    return Asked(PointsQuestion(paths, wanted.from_ms, wanted.to_ms, filters), tuple(path), order == "desc")


AskedPoints = Annotated[Asked, Depends(_asked)]
_RESPONSES: Final = responses(Page[PointsRow])


@router.get("/devices/{device}/points", openapi_extra=needs("history"), responses=_RESPONSES)
async def get_device_points(
    at: AtDevice,
    asked: AskedPoints,
    wanted: WantedRows,
) -> Response:
    """What attributes of a device were in each message that has one of them. With `Accept: application/x-ndjson` or
    `text/csv` all of the range, one a line, without pages."""
    return await _answer(at.tenant, Scope(at.tenant.project_id, (at.id,)), asked, wanted)


@router.get("/systems/{system_id}/points", openapi_extra=needs("history"), responses=_RESPONSES)
async def get_system_points(
    system_id: SystemPath,
    tenant: InSystem,
    asked: AskedPoints,
    wanted: WantedRows,
) -> Response:
    """The same of a system's devices, by device and time."""
    async with tenant.connection() as conn:
        await systems.get(conn, tenant.project_id, system_id)
    return await _answer(tenant, await scope_by(tenant, system_id, "device"), asked, wanted)


@router.get(
    "/points",
    openapi_extra=needs("history"),
    responses=_RESPONSES,
    description=f"The same of a project's devices, up to {DEVICES_MAX:,}.",
)
async def get_project_points(
    tenant: InProject,
    asked: AskedPoints,
    wanted: WantedRows,
) -> Response:
    return await _answer(tenant, await scope_by(tenant, None, "device"), asked, wanted)


async def _answer(tenant: Tenant, scope: Scope, asked: Asked, wanted: Wanted) -> Response:
    steps = series.points_of(
        tenant,
        scope,
        asked.question,
        descending=asked.descending,
        after=decode_cursor(wanted.cursor, Place),
        step=STEP_ROWS if wanted.stream else wanted.limit + 1,
    )
    written = _written(asked)
    return await answer(
        wanted,
        steps,
        page=lambda rows: text_page(rows, wanted.limit, place_of, written),
        lines=lambda rows: "\n".join([*map(written, rows), ""]).encode(),
        columns=("device", "event_time", "id", *asked.names),
        cells=_cells,
    )


def _written(asked: Asked) -> Callable[[PointRow], str]:
    """A row as JSON, put together from what is JSON already: a fifth of the time that objects would take."""
    names = [msgspec.json.encode(name).decode() for name in asked.names]

    def written(row: PointRow) -> str:
        values = [f"{name}:{value}" for name, value in zip(names, row[VALUES_AT:], strict=True) if value]
        return f'{{"device":{row[0]},"event_time":{row[1]},"id":"{row[2]}","values":{{{",".join(values)}}}}}'

    return written


def _cells(row: PointRow) -> tuple[Any, ...]:
    values = (None if value is None else msgspec.Raw(value.encode()) for value in row[VALUES_AT:])
    return (*row[:VALUES_AT], *values)
