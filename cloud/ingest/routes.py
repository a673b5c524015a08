"""HTTP ingest: POST /api/v1/messages takes JSON, POST /api/v1/ingest/… one payload as it is. Bodies are read by
msgspec, not by FastAPI: they may be large, and data stays as it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

import msgspec
from fastapi import Depends, Path, Query, Request
from fastapi.responses import Response
from fastapi.security import HTTPAuthorizationCredentials
from pydantic import BaseModel, Field

from cloud.api.auth import bearer, principal_of
from cloud.api.context import ApiContext
from cloud.api.fields import Body, Name
from cloud.api.problems import Problem, invalid
from cloud.api.routing import MODELS, needs, resource
from cloud.api.tenancy import ID_PATTERN, ProjectParameter, tenant_seen
from cloud.db import sources
from cloud.db.database import DatabaseError
from cloud.db.errors import NotFoundError
from cloud.ingest.fate_watch import FateWatch
from cloud.ingest.messages import KNOWN_CODECS, IngestMessage, RefusedError, Row, payload_row, rows_of
from cloud.ingest.rest_server import IngestResult, RestServer
from cloud.ingest.shared_looks import SharedLooks
from cloud.model.fate import FATES, foreseen
from cloud.registry_feed import RegistryFeed
from protocols.errors import UNREADABLE
from sync.bus.contract import BusError
from sync.registry import Registry

RETRY_S: Final = 1
WITHIN_S: Final = 5.0
WITHIN_S_MAX: Final = 30.0
"""How long a request may wait for what becomes of its records: shorter than proxies between us and clients wait."""

PREFIX: Final = "/api/v1"

router = resource(PREFIX, "messages")
_messages: Final = msgspec.json.Decoder(IngestMessage | list[IngestMessage])


class Admitted(msgspec.Struct, frozen=True):
    """Where the messages of a request go."""

    project_id: str
    source_id: int


class Ingest:
    """What the routes work on, given by the composition root as `app.state.ingest`."""

    def __init__(self, rest_server: RestServer, feed: RegistryFeed, watch: FateWatch, context: ApiContext) -> None:
        self.rest_server = rest_server
        self.feed = feed
        self.watch = watch
        self._context = context
        self._looks = SharedLooks(self._look)

    async def admit(self, token: str | None, project_id: str | None) -> Admitted:
        """Raises a problem, or NotFoundError: the token is none, or its user may not write to the project."""
        return await self._looks.ask((token, project_id))

    async def _look(self, asked: tuple[str | None, str | None]) -> Admitted:
        token, wanted = asked
        tenant = await tenant_seen(self._context, await principal_of(self._context, token), wanted)
        tenant.need("ingest")
        return Admitted(tenant.project_id, await self._source(tenant.project_id))

    async def _source(self, project_id: str) -> int:
        database = self._context.database
        try:
            async with database.connection() as conn:
                return await sources.number(conn, project_id, "rest")
        except NotFoundError:
            return await database.run(lambda conn: sources.add(conn, project_id, "rest"))


class SentMessage(Body):
    """With one of `data`, `payload_text` and `payload_base64`."""

    network_id: str = Field(examples=["demo"])
    alias_key: str | None = Field(default=None, description="The network's, if it is left out.", examples=["serial"])
    alias: str = Field(examples=["bench-01"])
    data: Any = Field(default=None, description="JSON, for the network's codec.", examples=[{"temperature": 71.5}])
    payload_text: str | None = Field(default=None, description="A payload as text.", examples=[None])
    payload_base64: str | None = Field(default=None, description="A payload of any bytes.", examples=[None])
    codec: str = Field(default="", description="The payload's; empty: the network's.")
    id: str | None = Field(default=None, description="Yours, unique for the device: makes sending again safe.")
    time: int | float | str | None = Field(
        default=None, description="Unix milliseconds, Unix seconds or RFC 3339; goes with an `id`."
    )


class Result(BaseModel):
    """What one message became."""

    record: str = Field(description="Epoch and number, to ask for it later.", examples=["5f1c8a526f5e4c8b/12480"])
    state: Literal["accepted", "rejected"] = Field(
        description="rejected: it does not decode, and is kept under /rejects with the reason."
    )
    device_known: bool = Field(description="False: it waits in the inbox until its device exists.", examples=[True])
    reason: str | None = Field(description="Why it does not decode.", examples=[None])
    fate: str = Field(
        default="stored",
        description=f"With `wait=stored` only: what has become of it, one of {', '.join(FATES)}; the last: it is safe, "
        "and on its way still.",
    )


async def _ingest(request: Request) -> Ingest:
    found: Ingest = request.app.state.ingest
    return found


IngestHere = Annotated[Ingest, Depends(_ingest)]
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
Wait = Annotated[
    Literal["stored"] | None,
    Query(description="stored: the answer comes once it is known what has become of each record, and says it."),
]
Within = Annotated[
    float,
    Query(gt=0, le=WITHIN_S_MAX, description="How long to wait at most, in seconds; then the answer comes as is."),
]
_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "anyOf": [
                        {"$ref": "#/components/schemas/SentMessage"},
                        {"type": "array", "items": {"$ref": "#/components/schemas/SentMessage"}},
                    ]
                },
                "example": {"network_id": "demo", "alias": "bench-01", "data": {"temperature": 71.5}},
            }
        },
    },
    MODELS: {"SentMessage": SentMessage.model_json_schema()},
}
_PAYLOAD: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.post(
    "/messages",
    summary="Send one message or many",
    responses={200: {"model": Result | list[Result]}},
    openapi_extra=needs("ingest") | _BODY,
)
async def post_messages(
    request: Request,
    ingest: IngestHere,
    credentials: Credentials,
    project_id: ProjectParameter = None,
    wait: Wait = None,
    within_s: Within = WITHIN_S,
) -> Response:
    """One message (an object) or many (an array): `network_id`, `alias`, and `data` (JSON), or `payload_text` or
    `payload_base64` for the network's codec or the one that `codec` names; `alias_key` where it is not the network's.
    Answered once all of them are durable; each answer says what record it became, whether its device is known, and why
    it does not decode, if so. Sending again is safe with an `id`; with a `time` it is filed under it."""
    token = credentials.credentials if credentials else None
    return await take_messages(request, ingest, token, project_id, wait, within_s)


@router.post(
    "/ingest/{network_id}/{alias_key}/{alias:path}",
    summary="Send one payload as it is",
    responses={200: {"model": Result}},
    openapi_extra=needs("ingest") | _PAYLOAD,
)
async def post_payload(
    request: Request,
    ingest: IngestHere,
    credentials: Credentials,
    network_id: Annotated[str, Path(pattern=ID_PATTERN, examples=["demo"])],
    alias_key: Annotated[Name, Path(examples=["serial"])],
    alias: Annotated[Name, Path(examples=["bench-01"])],
    codec: Annotated[
        str, Query(max_length=64, description=f"One of {', '.join(sorted(KNOWN_CODECS))}; empty: the network's.")
    ] = "",
    id: Annotated[str | None, Query(max_length=200, description="Makes sending again safe.")] = None,
    time: Annotated[str | None, Query(max_length=64, description="RFC 3339, or Unix milliseconds or seconds.")] = None,
    project_id: ProjectParameter = None,
    wait: Wait = None,
    within_s: Within = WITHIN_S,
) -> Response:
    """The body is the payload, whatever its content type: the network's codec reads it, or the one that is named. It
    is recorded as it came, and may hold several messages."""
    admitted = await ingest.admit(credentials.credentials if credentials else None, project_id)
    body = await request.body()

    def row(registry: Registry) -> list[Row]:
        return [payload_row(registry, network_id, alias_key, alias, body, codec=codec, id_=id, time=_time(time))]

    return _answer((await _take(ingest, admitted, row, wait, within_s))[0])


async def take_messages(
    request: Request,
    ingest: Ingest,
    token: str | None,
    project_id: str | None,
    wait: str | None = None,
    within_s: float = WITHIN_S,
) -> Response:
    """post_messages, its parameters checked. Raises a problem."""
    admitted = await ingest.admit(token, project_id)
    try:
        held = _messages.decode(await request.body())
    except UNREADABLE as error:
        raise invalid("body", str(error)) from None
    messages = held if isinstance(held, list) else [held]
    many = isinstance(held, list)
    results = await _take(ingest, admitted, lambda registry: rows_of(registry, messages, many=many), wait, within_s)
    return _answer(results if many else results[0])


async def _take(
    ingest: Ingest,
    admitted: Admitted,
    rows: Callable[[Registry], list[Row]],
    wait: str | None,
    within_s: float,
) -> list[IngestResult]:
    try:
        registry = await ingest.feed.registry(admitted.project_id)
        held = rows(registry)
        if wait and not ingest.watch.has_room(len(held)):
            raise _unavailable("too-many-waiting", "Too many wait", "too many records are waited for already")
        taken = await ingest.rest_server.take(admitted.source_id, registry, held)
    except RefusedError as error:
        raise invalid(error.field, error.detail, limit=error.limit) from None
    except (BusError, DatabaseError) as error:
        raise _unavailable("not-durable", "Not taken", f"the messages could not be made durable: {error}") from None
    results, run = taken.results, taken.run
    if not wait:
        return results
    messages = foreseen(taken.batch, run, taken.first_place)
    del taken, held  # what waits is to hold no payloads
    fates = await ingest.watch.fates(run, messages, within_s)
    return [msgspec.structs.replace(each, fate=fate) for each, fate in zip(results, fates, strict=True)]


def _unavailable(code: str, title: str, detail: str) -> Problem:
    remedy = "send them again, with an id each so that none is stored twice"
    return Problem(503, code, title, detail, remedy=remedy, headers={"Retry-After": str(RETRY_S)})


def _time(text: str | None) -> int | float | str | None:
    """A number where it is one."""
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text


def _answer(results: IngestResult | list[IngestResult]) -> Response:
    return Response(msgspec.json.encode(results), media_type="application/json")
