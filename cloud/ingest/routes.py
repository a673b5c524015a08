"""POST /api/v1/messages: HTTP ingest. The body is read by msgspec: it may be large, and its data stays as it is."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from cloud.api.context import Context
from cloud.api.problems import Problem, invalid
from cloud.api.tenancy import WritableProject
from cloud.db import sources
from cloud.db.database import DatabaseError
from cloud.ingest.rest_server import IngestMessage, RestServer
from cloud.registry_feed import RegistryFeed
from protocols.errors import UNREADABLE, LimitError
from protocols.limits import BATCH_BYTES_MAX
from sync.bus.contract import BusError

RETRY_S: Final = 1

router = APIRouter(prefix="/api/v1", tags=["messages"])
_decoder: Final = msgspec.json.Decoder(IngestMessage | list[IngestMessage])


class Ingest(msgspec.Struct, frozen=True):
    """What the route works on, given by the composition root as `app.state.ingest`."""

    rest_server: RestServer
    feed: RegistryFeed


def _ingest(request: Request) -> Ingest:
    found: Ingest = request.app.state.ingest
    return found


@router.post("/messages", summary="Send one message or many", status_code=200)
async def post_messages(
    request: Request, context: Context, project_id: WritableProject, ingest: Annotated[Ingest, Depends(_ingest)]
) -> Response:
    """One message (an object) or many (an array). Answered once all of them are durable; each answer says what record
    it became, whether its device is known, and why it does not decode, if so. Sending again is safe with an `id`."""
    body = await request.body()
    if len(body) > BATCH_BYTES_MAX:
        raise invalid("body", f"{len(body):,} bytes in one request", limit=BATCH_BYTES_MAX)
    try:
        held = _decoder.decode(body)
    except UNREADABLE as error:
        raise invalid("body", str(error)) from None
    messages = held if isinstance(held, list) else [held]
    try:
        async with context.database.transaction() as conn:
            source_id = await sources.add(conn, project_id, "rest")
        results = await ingest.rest_server.take(source_id, await ingest.feed.registry(project_id), messages)
    except LimitError as error:
        raise invalid("body", error.detail) from None
    except (BusError, DatabaseError) as error:
        raise Problem(
            503,
            "not-durable",
            "Not taken",
            f"the messages could not be made durable: {error}",
            remedy="send them again, with an id each so that none is stored twice",
            headers={"Retry-After": str(RETRY_S)},
        ) from None
    answer = msgspec.json.encode(results if isinstance(held, list) else results[0])
    return Response(answer, media_type="application/json")
