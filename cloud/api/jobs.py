"""Jobs: work that takes longer than a request."""

from __future__ import annotations

import datetime
from typing import Annotated, Any

import msgspec
from fastapi import Path, Query
from pydantic import BaseModel, Field

from cloud.api.pages import Cursor, Limit, Page, decode_cursor, make_page
from cloud.api.routing import needs, resource
from cloud.api.tenancy import InProject
from cloud.db import jobs
from cloud.model.job import STATES
from cloud.model.job import Job as JobRow

router = resource("/jobs", "jobs")
JobPath = Annotated[int, Path(ge=1, le=2**62, examples=[7])]


class Job(BaseModel):
    """It is done step by step, goes on where it was after a crash, and does nothing twice."""

    number: int = Field(examples=[7])
    kind: str = Field(examples=["dead-letters"])
    asked: dict[str, Any] = Field(description="What it is about, as its kind says.", examples=[{"through": 12}])
    state: str = Field(description=f"One of {', '.join(STATES)}.", examples=["running"])
    cancel_asked: bool = Field(description="It ends before its next step; what it has done stays.", examples=[False])
    done: int = Field(description="Progress: so much of `total`.", examples=[3])
    total: int = Field(examples=[12])
    result: dict[str, Any] = Field(description="What has come of it so far.", examples=[{"replayed": 3}])
    error: str | None = Field(description="Why it failed.", examples=[None])
    created_at: datetime.datetime
    started_at: datetime.datetime | None
    finished_at: datetime.datetime | None


@router.get("")
async def list_jobs(
    tenant: InProject,
    kind: Annotated[str | None, Query(max_length=64, examples=["dead-letters"])] = None,
    state: Annotated[str | None, Query(max_length=64, description=f"One of {', '.join(STATES)}.")] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[Job]:
    """The newest first."""
    async with tenant.connection() as conn:
        rows = await jobs.page(
            conn, tenant.project_id, kind=kind, state=state, after=decode_cursor(cursor, int), limit=limit + 1
        )
    return make_page(rows, limit, lambda row: row.number, shown_job)


@router.get("/{number}")
async def get_job(number: JobPath, tenant: InProject) -> Job:
    """How far it is."""
    async with tenant.connection() as conn:
        return shown_job(await jobs.get(conn, tenant.project_id, number))


@router.post("/{number}/cancel", openapi_extra=needs("update"))
async def cancel_job(number: JobPath, tenant: InProject) -> Job:
    """Ends it before its next step. What it has done stays done; one that has ended stays as it is."""
    return shown_job(await tenant.run(lambda conn: jobs.cancel(conn, tenant.project_id, number)))


def shown_job(row: JobRow) -> Job:
    fields = msgspec.structs.asdict(row)
    return Job(**{name: fields[name] for name in Job.model_fields})
