"""Decoding again what was rejected, once its codec is mended."""

from __future__ import annotations

import datetime
from typing import Annotated

from fastapi import Path
from pydantic import BaseModel, Field

from cloud.api.codec import Word
from cloud.api.context import Context
from cloud.api.fields import Body
from cloud.api.pages import Cursor, Limit, Page, decode_cursor, make_page
from cloud.api.routing import resource
from cloud.api.tenancy import ID_PATTERN, InProject
from cloud.db import reject_replays
from cloud.model.rejected import RejectFilter, RejectReplay

router = resource("/rejects/replay", "data")

Moment = Annotated[int, Field(ge=-(2**53), le=2**53, description="Unix milliseconds.")]


class NewReplay(Body):
    """Which rejects; all of the project without any."""

    network_id: Annotated[str, Field(pattern=ID_PATTERN)] | None = Field(default=None, examples=["demo"])
    code: Word | None = Field(default=None, examples=["undecodable"])
    since_time: Moment | None = Field(default=None, description="Received then or later.")
    until_time: Moment | None = Field(default=None, description="Received before.")


class Replay(BaseModel):
    """Decoded again, from their bytes, in order; progress is decoded + failed, of total."""

    number: int = Field(examples=[7])
    network_id: str | None = Field(examples=["demo"])
    code: str | None = Field(examples=[None])
    since_time: int | None = Field(examples=[None])
    until_time: int | None = Field(examples=[None])
    total: int = Field(description="Rejects that there were when it was asked for.", examples=[1000])
    decoded: int = Field(description="Records that decode now; they are no rejects any more.", examples=[998])
    failed: int = Field(description="Records that do not; they wait as before, with their new reason.", examples=[2])
    finished: bool = Field(examples=[True])
    created_at: datetime.datetime
    finished_at: datetime.datetime | None


@router.post("", status_code=201)
async def create_replay(body: NewReplay, context: Context, tenant: InProject) -> Replay:
    """Begins to decode rejects again, with the codecs that their networks have now. Each becomes the messages that it
    would have become the first time, once, however often this is asked for."""
    wanted = RejectFilter(body.network_id, body.code, body.since_time, body.until_time)
    return _shown(await tenant.run(lambda conn: reject_replays.create(conn, tenant.project_id, wanted)))


@router.get("")
async def list_replays(context: Context, tenant: InProject, limit: Limit = 100, cursor: Cursor = None) -> Page[Replay]:
    """The newest first."""
    async with tenant.connection() as conn:
        rows = await reject_replays.page(conn, tenant.project_id, after=decode_cursor(cursor, int), limit=limit + 1)
    return make_page(rows, limit, lambda row: row.number, _shown)


@router.get("/{number}")
async def get_replay(
    number: Annotated[int, Path(ge=1, le=2**62, examples=[7])], context: Context, tenant: InProject
) -> Replay:
    """How far it is."""
    async with tenant.connection() as conn:
        return _shown(await reject_replays.get(conn, tenant.project_id, number))


def _shown(row: RejectReplay) -> Replay:
    assert row.created_at is not None, "the database gave it one"
    return Replay(
        number=row.number,
        network_id=row.wanted.network_id,
        code=row.wanted.code,
        since_time=row.wanted.since_ms,
        until_time=row.wanted.until_ms,
        total=row.total,
        decoded=row.decoded,
        failed=row.failed,
        finished=row.finished_at is not None,
        created_at=row.created_at,
        finished_at=row.finished_at,
    )
