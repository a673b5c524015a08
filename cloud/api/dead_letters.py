"""What a hop of the pipeline could not do for good."""

from __future__ import annotations

import base64
import datetime
from typing import Annotated

from fastapi import Path, Query
from pydantic import BaseModel, Field

from cloud.api.fields import Body
from cloud.api.jobs import Job, shown_job
from cloud.api.pages import Cursor, Limit, Page, decode_cursor, make_page
from cloud.api.routing import resource
from cloud.api.tenancy import InProject
from cloud.db import dead_letters, jobs
from cloud.db.database import Connection
from cloud.db.errors import NotFoundError
from cloud.model.dead import DeadLetter as LetterRow
from cloud.model.job import Job as JobRow
from cloud.services.dead_letters import KIND

router = resource("/dead-letters", "data")
Seq = Annotated[int, Field(ge=1, le=2**62, examples=[3])]
HopQuery = Annotated[str | None, Query(max_length=64, examples=["processor"])]


class DeadLetter(BaseModel):
    """A batch of records that a hop failed on, three times and alone."""

    seq: int = Field(examples=[3])
    hop: str = Field(examples=["processor"])
    topic: str = Field(description="That it came by.", examples=["default-processor"])
    detail: str = Field(description="What the hop failed on.", examples=["ValueError: …"])
    epoch: str | None = Field(description="Of its records.", examples=["5f1c8a526f5e4c8b"])
    records: list[tuple[int, int]] = Field(
        description="First and end of their numbers; empty: it is older than that being noted, and cannot be replayed.",
        examples=[[[12480, 12580]]],
    )
    size_bytes: int = Field(examples=[4711])
    created_at: datetime.datetime


class DeadLetterInFull(DeadLetter):
    data: str = Field(description="As it came, base64: of the processor a block, of other hops a batch of messages.")


class NewDeadReplay(Body):
    """Which dead letters; all of the project without any."""

    seq: Seq | None = Field(default=None, description="Only this one.")
    hop: Annotated[str, Field(max_length=64)] | None = Field(default=None, examples=["processor"])


@router.get("")
async def list_dead_letters(
    tenant: InProject, hop: HopQuery = None, limit: Limit = 100, cursor: Cursor = None
) -> Page[DeadLetter]:
    """The newest first, without their bytes."""
    async with tenant.connection() as conn:
        rows = await dead_letters.page(
            conn, tenant.project_id, hop=hop, after=decode_cursor(cursor, int), limit=limit + 1
        )
    return make_page(rows, limit, lambda row: row.seq, _shown)


@router.post("/replay", status_code=201)
async def replay_dead_letters(body: NewDeadReplay, tenant: InProject) -> Job:
    """Gives them to their hops again, once what they failed on is mended. What fails again is a dead letter again."""

    async def create(conn: Connection) -> JobRow:
        letters, newest = await dead_letters.count(conn, tenant.project_id, body.hop, body.seq)
        if body.seq is not None and not letters:
            raise NotFoundError("dead letter", body.seq)
        asked = {"through": newest, **body.model_dump(exclude_none=True)}
        return await jobs.create(conn, tenant.project_id, KIND, asked, letters)

    return shown_job(await tenant.run(create))


@router.get("/{seq}")
async def get_dead_letter(
    seq: Annotated[int, Path(ge=1, le=2**62, examples=[3])], tenant: InProject
) -> DeadLetterInFull:
    """A dead letter, with its bytes."""
    async with tenant.connection() as conn:
        row = await dead_letters.get(conn, tenant.project_id, seq)
    return DeadLetterInFull(**_shown(row).model_dump(), data=base64.b64encode(row.data).decode())


def _shown(row: LetterRow) -> DeadLetter:
    return DeadLetter(
        seq=row.seq,
        hop=row.hop,
        topic=row.topic,
        detail=row.detail,
        epoch=None if row.epoch is None else f"{row.epoch:016x}",
        records=list(row.records),
        size_bytes=row.size_bytes,
        created_at=row.created_at,
    )
