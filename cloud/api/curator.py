"""What the curator let go of, and the wish that it does."""

from __future__ import annotations

import datetime
from typing import Annotated, Literal

import msgspec
from fastapi import Path
from pydantic import BaseModel, Field

from cloud.api.context import Context
from cloud.api.fields import Body
from cloud.api.pages import Cursor, Limit, Page, decode_cursor, make_page
from cloud.api.routing import needs, resource
from cloud.api.tenancy import InProject
from cloud.db import curator_reports
from cloud.model.curation import Report as ReportRow

router = resource("/curator", "retention")


class NewRun(Body):
    dry_run: bool = Field(default=False, description="Only tell what would go.")


class Line(BaseModel):
    """What a rule did to a table."""

    table: str = Field(examples=["history_20260223"])
    rule: str = Field(examples=["history_days = 365"])
    action: Literal["dropped", "deleted", "stripped"] = Field(
        description="dropped: with their whole week; stripped: of attributes, the messages stay."
    )
    rows_before: int = Field(description="That the rule was about, before.", examples=[604800])
    rows: int = Field(description="That are gone, or stripped; in a dry run: that would be.", examples=[604800])
    rows_after: int = Field(description="That it is about still, such as what came meanwhile.", examples=[0])
    row_bytes: int = Field(description="What they held, without index entries.", examples=[81043200])


class Size(BaseModel):
    """What a table has on disk, with its indexes, of all that share it."""

    table: str = Field(examples=["history_20260223"])
    bytes_before: int = Field(examples=[131072000])
    bytes_after: int = Field(
        description="0: it is dropped, and the disk has it back. Else room that deleted rows leave inside is used "
        "again, and given back from the table's end only.",
        examples=[0],
    )


class Report(BaseModel):
    number: int = Field(examples=[7])
    dry_run: bool
    state: Literal["waiting", "running", "finished"]
    asked_at: datetime.datetime
    started_at: datetime.datetime | None
    finished_at: datetime.datetime | None
    rows: int = Field(description="Of all lines.", examples=[604800])
    row_bytes: int = Field(examples=[81043200])
    lines: list[Line]
    sizes: list[Size]
    lock_waits: int = Field(description="Locks that it let go for writers' sake, and asked for again.", examples=[0])
    problem: str = Field(description="Why it did not do all; the next run goes on.", examples=[""])


@router.get("/reports", openapi_extra=needs("administer"))
async def list_reports(context: Context, tenant: InProject, limit: Limit = 100, cursor: Cursor = None) -> Page[Report]:
    """The newest first: of runs by schedule that let something go, and of those that were asked for."""
    async with tenant.connection() as conn:
        rows = await curator_reports.page(conn, tenant.project_id, after=decode_cursor(cursor, int), limit=limit + 1)
    return make_page(rows, limit, lambda row: row.number, _shown)


@router.get("/reports/{number}", openapi_extra=needs("administer"))
async def get_report(
    number: Annotated[int, Path(ge=1, le=2**62, examples=[7])], context: Context, tenant: InProject
) -> Report:
    """What one run of the curator did."""
    async with tenant.connection() as conn:
        return _shown(await curator_reports.get(conn, tenant.project_id, number))


@router.post("/runs", status_code=202, openapi_extra=needs("administer"))
async def create_run(body: NewRun, context: Context, tenant: InProject) -> Report:
    """Asks the curator to work now; the report says how far it is. One that waits or runs already is given again."""
    return _shown(await tenant.run(lambda conn: curator_reports.ask(conn, tenant.project_id, dry_run=body.dry_run)))


def _shown(row: ReportRow) -> Report:
    told = msgspec.to_builtins(row, builtin_types=(datetime.datetime,))
    state = "finished" if row.finished_at else "running" if row.started_at else "waiting"
    totals = {name: sum(getattr(line, name) for line in row.lines) for name in ("rows", "row_bytes")}
    return Report.model_validate({**told, "state": state, **totals})
