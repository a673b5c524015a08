"""History: pages for people and programs, and the whole of a range as a stream."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final, Literal

import msgspec
from fastapi import Depends, Header, Path, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from cloud.api.context import ApiContext, Context
from cloud.api.pages import Cursor, Limit, Page, decode_cursor, raw_json, raw_page
from cloud.api.problems import Problem, invalid
from cloud.api.routing import needs, resource
from cloud.api.tenancy import AtDevice, InProject
from cloud.api.times import FROM_MIN_MS, TO_MAX_MS, span_ms, time_ms
from cloud.db import history
from cloud.db.history import HistoryRow
from protocols.shipment import CLOCK_CORRECTED, CLOCK_UNSURE, DERIVED, KEYED, LATE, TIME_REPLACED

router = resource("/devices", "data")
messages_router = resource("/messages", "data")

_lines_of: Final = msgspec.json.Encoder().encode_lines
NDJSON: Final = "application/x-ndjson"
STREAM_ROWS: Final = 5000
"""Rows that a stream reads at a time: about 1 MB; no connection waits while the client takes them."""


class Message(BaseModel):
    id: str = Field(examples=["5f1c8a52-6f5e-4c8b-9d5e-000000000000"])
    event_time: int = Field(
        description="What it is filed under: the device's time if plausible, else the received time."
    )
    time: int | None = Field(description="The device's own, as it came; null: it gave none.")
    received_time: int = Field(description="By the gateway.")
    time_replaced: bool = Field(description="The device's time was not plausible.")
    time_error_ms: int | None = Field(
        description="Where the gateway's clock was corrected: event_time is true within so much either way; null: no "
        "bound is known, or none is needed."
    )
    clock: Literal["synchronized", "corrected", "unsure"] = Field(
        description="The gateway's, when it received the message. corrected: it was wrong, and event_time goes by what "
        "it should have shown. unsure: it was never set, and nothing told the time since its start."
    )
    late: bool = Field(description="It came behind newer ones, after the gateway had been without a link.")
    keyed: bool = Field(description="Its id derives from a message key: a resend is not stored again.")
    derived: bool = Field(description="Another device's message, forwarded by a relationship.")
    data: dict[str, Any] = Field(examples=[{"temperature": 71.5}])


class StoredMessage(Message):
    device: int = Field(description="Its id.", examples=[17])


class Range(msgspec.Struct, frozen=True):
    """[from_ms, to_ms) of event time."""

    from_ms: int
    to_ms: int


def _range(
    context: Context,
    last: Annotated[str | None, Query(description="A span up to now: 10m, 2h, 7d.", examples=["10m"])] = None,
    from_: Annotated[
        str | None, Query(alias="from", description="Event time, inclusive: RFC 3339 or Unix milliseconds.")
    ] = None,
    to: Annotated[str | None, Query(description="Event time, exclusive.")] = None,
) -> Range:
    if last is not None:
        if from_ is not None or to is not None:
            raise invalid("last", "goes with neither from nor to")
        # The end stays open: a device's clock may run a little ahead of ours.
        return Range(max(FROM_MIN_MS, context.wall_ms() - span_ms(last, "last")), TO_MAX_MS)
    wanted = Range(
        FROM_MIN_MS if from_ is None else time_ms(from_, "from"), TO_MAX_MS if to is None else time_ms(to, "to")
    )
    if wanted.from_ms > wanted.to_ms:
        raise invalid("from", "is after to")
    return wanted


EventRange = Annotated[Range, Depends(_range)]


@router.get(
    "/{device}/history",
    openapi_extra=needs("history"),
    responses={200: {"model": Page[Message], "content": {NDJSON: {"schema": {"type": "string"}}}}},
)
async def get_history(
    context: Context,
    at: AtDevice,
    wanted: EventRange,
    order: Annotated[Literal["asc", "desc"], Query(description="By event time; desc: the newest first.")] = "desc",
    limit: Limit = 100,
    cursor: Cursor = None,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response:
    """The device's messages. With `Accept: application/x-ndjson` all of the range, a message a line, without pages."""
    descending = order == "desc"
    if NDJSON in accept:
        return StreamingResponse(_lines(context, *at.place, wanted, descending), media_type=NDJSON)
    after = _after(cursor)
    async with at.tenant.connection() as conn:
        rows = await history.page(
            conn, *at.place, wanted.from_ms, wanted.to_ms, after=after, limit=limit + 1, descending=descending
        )
    return raw_page(rows, limit, _key, _shown)


@messages_router.get("/{message_id}", openapi_extra=needs("history"), responses={200: {"model": StoredMessage}})
async def get_message(
    message_id: Annotated[uuid.UUID, Path(description="As history, points and the live stream show it.")],
    context: Context,
    tenant: InProject,
) -> Response:
    """A stored message. Where one is that is not stored: GET /api/v1/where."""
    async with tenant.connection() as conn:
        found = await history.find(conn, tenant.project_id, message_id)
    if found is None:
        detail, remedy = f"no message {message_id} is stored", f"GET /api/v1/where?id={message_id} tells where it is"
        raise Problem(404, "not-found", "Not found", detail, remedy=remedy)
    device_id, row = found
    return raw_json({"device": device_id, **_shown(row)})


async def _lines(
    context: ApiContext, project: str, device_id: int, wanted: Range, descending: bool
) -> AsyncIterator[bytes]:
    after = None
    while True:
        async with context.database.connection() as conn:
            rows = await history.page(
                conn,
                project,
                device_id,
                wanted.from_ms,
                wanted.to_ms,
                after=after,
                limit=STREAM_ROWS,
                descending=descending,
            )
        if rows:
            yield _lines_of([_shown(row) for row in rows])
            after = (rows[-1].event_time, rows[-1].id)
        if len(rows) < STREAM_ROWS:
            return


def _key(row: HistoryRow) -> tuple[int, str]:
    return row.event_time, row.id.hex()


def _after(cursor: str | None) -> tuple[int, bytes] | None:
    key = decode_cursor(cursor, tuple[int, Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]])
    return None if key is None else (key[0], bytes.fromhex(key[1]))


def _shown(row: HistoryRow) -> dict[str, Any]:
    return {
        "id": str(uuid.UUID(bytes=row.id)),
        "event_time": row.event_time,
        "time": row.time,
        "received_time": row.received_time,
        "time_replaced": bool(row.flags & TIME_REPLACED),
        "time_error_ms": row.time_error_ms,
        "clock": "corrected"
        if row.flags & CLOCK_CORRECTED
        else "unsure"
        if row.flags & CLOCK_UNSURE
        else "synchronized",
        "late": bool(row.flags & LATE),
        "keyed": bool(row.flags & KEYED),
        "derived": bool(row.flags & DERIVED),
        "data": msgspec.Raw(row.data),
    }
