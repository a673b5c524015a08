"""Series: what attributes were over time, grouped in buckets."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Final, Literal

import msgspec
from fastapi import Depends, Query, Response
from pydantic import BaseModel, Field

from cloud import series
from cloud.api.context import Context
from cloud.api.pages import Page, decode_cursor, raw_page
from cloud.api.problems import Problem, invalid
from cloud.api.routing import needs, resource
from cloud.api.rows import Wanted, WantedRows, answer, responses
from cloud.api.tenancy import AtDevice, InProject, InSystem, SystemPath, Tenant
from cloud.api.times import FROM_MIN_MS, span_ms, time_ms
from cloud.db import systems
from cloud.model.buckets import AskedError
from cloud.model.series import FILTERS_MAX, FUNCTIONS_MAX, HOLD_DEFAULT_MS, PATHS_MAX, Question, Row, ask
from cloud.series import DEVICES_MAX, Place, Scope

router = resource("", "data")

_encode: Final = msgspec.json.Encoder()


Paths = Annotated[
    list[str],
    Query(
        min_length=1,
        max_length=PATHS_MAX,
        description="An attribute, or a path in one: `meta.serial`; `\\.` is a point in a name. Several: repeat it.",
        examples=[["temperature"]],
    ),
]
Filters = Annotated[
    list[str] | None,
    Query(
        max_length=FILTERS_MAX,
        description="Only messages with such a value: `mode=auto`, `temperature>=20` (=, !=, and with numbers <, "
        "<=, >, >=). All of them hold, where there are several.",
        examples=[["mode=auto"]],
    ),
]


class BucketRow(BaseModel):
    """Beside these fields each function that was asked for, by its name."""

    device: int | None = Field(description="Its id; null: of several together.", examples=[17])
    path: str = Field(examples=["temperature"])
    start_time: int = Field(description="Of the bucket, Unix milliseconds.", examples=[1772319600000])
    end_time: int = Field(description="Of the bucket, exclusive.", examples=[1772406000000])
    gap: bool = Field(description="A gateway has lost records that it received in this bucket: values may be missing.")
    filled: bool = Field(description="The bucket has no value; what is shown is what `fill` says.")
    avg: float | None = Field(default=None, examples=[71.5])
    max: float | None = Field(default=None, examples=[74.0])


class Asked(msgspec.Struct, frozen=True):
    question: Question
    names: tuple[str, ...]
    """The paths as they were written."""
    descending: bool


def _asked(
    context: Context,
    path: Paths,
    bucket: Annotated[
        str,
        Query(
            description="What is grouped: a width such as `15m` (s, m, h, d), counted from 1970-01-01T00:00Z; `day`, "
            "`week` (from Monday), `month`, `quarter`, `year` of the zone, which follow its daylight saving; `all`: "
            "one.",
            examples=["day"],
        ),
    ] = "all",
    function: Annotated[
        list[str] | None,
        Query(
            max_length=FUNCTIONS_MAX,
            description="`avg`, `min`, `max`, `sum` of numbers; `p50`, `p99.9`: percentiles of them, interpolated; "
            "`count`, `first`, `last` of any values; `delta`: the bucket's last number minus the last one before the "
            "bucket (else its first); `rate`: the same a second; `twa`: the average weighted by how long each number "
            "held; `states`: how long each value held, in milliseconds. Several: repeat it. Default: avg.",
            examples=[["avg", "max"]],
        ),
    ] = None,
    zone: Annotated[
        str,
        Query(max_length=100, description="Whose days, weeks, … they are: an IANA name.", examples=["Europe/Berlin"]),
    ] = "UTC",
    last: Annotated[
        str | None, Query(description="A span up to now: 10m, 2h, 7d. Else `from` is needed.", examples=["7d"])
    ] = None,
    from_: Annotated[
        str | None, Query(alias="from", description="Event time, inclusive: RFC 3339 or Unix milliseconds.")
    ] = None,
    to: Annotated[
        str | None, Query(description="Event time, exclusive. Default: the end of the bucket that now is in.")
    ] = None,
    filter: Filters = None,
    fill: Annotated[
        str,
        Query(
            max_length=40,
            description="What a bucket without values shows: `none`: it is left out; `null`; `previous`: the value "
            "before; `linear`: between the ones before and behind; or a number. `count` is 0 there, `states` null.",
            examples=["null"],
        ),
    ] = "none",
    hold: Annotated[
        str | None,
        Query(
            description="How long a value counts for `delta`, `rate`, `twa` and `states` if no other follows: a span. "
            f"Default: {HOLD_DEFAULT_MS // 86_400_000}d.",
            examples=["1h"],
        ),
    ] = None,
    order: Annotated[
        Literal["asc", "desc"], Query(description="Of the buckets of a series; desc: the newest first.")
    ] = "asc",
) -> Asked:
    now_ms = context.wall_ms()
    from_ms, to_ms = _range(last, from_, to, now_ms)
    hold_ms = HOLD_DEFAULT_MS if hold is None else span_ms(hold, "hold")
    try:
        question = ask(
            path, function or (), bucket, zone, from_ms, to_ms, now_ms, filters=filter or (), fill=fill, hold_ms=hold_ms
        )
    except AskedError as error:
        raise as_problem(error) from None
    return Asked(question, tuple(path), order == "desc")


def _range(last: str | None, from_: str | None, to: str | None, now_ms: int) -> tuple[int, int | None]:
    if last is not None:
        if from_ is not None or to is not None:
            raise invalid("last", "goes with neither from nor to")
        return max(FROM_MIN_MS, now_ms - span_ms(last, "last")), None
    if from_ is None:
        raise invalid("from", "is missing", remedy="give from, or last, such as last=7d")
    return time_ms(from_, "from"), None if to is None else time_ms(to, "to")


def as_problem(error: AskedError) -> Problem:
    return invalid(error.field, error.detail, limit=error.limit, remedy=error.remedy)


AskedSeries = Annotated[Asked, Depends(_asked)]
By = Annotated[
    Literal["device", "all"],
    Query(description="device: a series for each; all: one series of all devices together, for functions of values."),
]
_RESPONSES: Final = responses(Page[BucketRow])


@router.get("/devices/{device}/series", openapi_extra=needs("history"), responses=_RESPONSES)
async def get_device_series(
    at: AtDevice,
    asked: AskedSeries,
    wanted: WantedRows,
) -> Response:
    """What attributes of a device were, in buckets: by path, then time. With `Accept: application/x-ndjson` or
    `text/csv` all rows, one a line, without pages."""
    return await _answer(at.tenant, Scope(at.tenant.project_id, (at.id,)), asked, wanted)


@router.get("/systems/{system_id}/series", openapi_extra=needs("history"), responses=_RESPONSES)
async def get_system_series(
    system_id: SystemPath,
    tenant: InSystem,
    asked: AskedSeries,
    wanted: WantedRows,
    by: By = "device",
) -> Response:
    """The same of a system's devices, by device, path and time, or of all of them together."""
    async with tenant.connection() as conn:
        await systems.get(conn, tenant.project_id, system_id)
    return await _answer(tenant, await scope_by(tenant, system_id, by), asked, wanted)


@router.get(
    "/series",
    openapi_extra=needs("history"),
    responses=_RESPONSES,
    description=f"The same of a project's devices, up to {DEVICES_MAX:,}.",
)
async def get_project_series(
    tenant: InProject,
    asked: AskedSeries,
    wanted: WantedRows,
    by: By = "device",
) -> Response:
    return await _answer(tenant, await scope_by(tenant, None, by), asked, wanted)


async def scope_by(tenant: Tenant, system_id: str | None, by: str) -> Scope:
    try:
        return await series.scope_of(tenant, tenant.project_id, system_id, together=by == "all")
    except AskedError as error:
        raise as_problem(error) from None


async def _answer(tenant: Tenant, scope: Scope, asked: Asked, wanted: Wanted) -> Response:
    try:
        series.check(asked.question, together=scope.together)
    except AskedError as error:
        raise as_problem(error) from None
    after = decode_cursor(wanted.cursor, Place)
    lossy = await series.lossy(tenant, scope, asked.question.buckets)
    shown = partial(series.told, asked.question, asked.names, lossy)
    return await answer(
        wanted,
        series.rows_of(tenant, scope, asked.question, descending=asked.descending, after=after),
        page=lambda rows: raw_page(rows, wanted.limit, _place, shown),
        lines=lambda rows: _encode.encode_lines(map(shown, rows)),
        columns=("device", "path", "start_time", "end_time", "gap", "filled", *asked.question.functions),
        cells=lambda row: tuple(shown(row).values()),
    )


def _place(row: Row) -> Place:
    return Place(row.device_id, row.path, row.bucket)
