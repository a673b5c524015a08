"""What waits: messages of unknown devices, and records that do not decode."""

from __future__ import annotations

import base64
import uuid
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, Field

from cloud.api.context import Context
from cloud.api.decoding import CodecTry, Decoding, tried
from cloud.api.pages import Cursor, Limit, Page, decode_cursor, raw_json, raw_page
from cloud.api.tenancy import ReadableProject
from cloud.db import inbox, networks, rejects
from cloud.db.errors import NotFoundError
from cloud.model.rejected import RejectFilter, RejectRow
from cloud.model.unresolved import InboxRow
from protocols.codecs import CodecSpec

router = APIRouter(tags=["data"])


class WaitingFrom(BaseModel):
    """Messages of one unknown name."""

    network_id: str = Field(examples=["demo"])
    alias_key: str = Field(examples=["serial"])
    alias: str = Field(examples=["bench-02"])
    messages: int = Field(examples=[12])
    first_received: int = Field(description="Unix milliseconds.", examples=[1772353800012])
    last_received: int = Field(description="Unix milliseconds.", examples=[1772353860012])


class InboxGroups(BaseModel):
    count: int
    items: list[WaitingFrom]
    next: None = None


class InboxMessage(BaseModel):
    seq: int = Field(examples=[4711])
    id: str
    network_id: str = Field(examples=["demo"])
    alias_key: str = Field(examples=["serial"])
    alias: str = Field(examples=["bench-02"])
    time: int | None
    received_time: int
    event_time: int
    replaying: bool = Field(description="Its device exists by now; it is on its way to the writer.")
    data: dict[str, Any] = Field(examples=[{"temperature": 71.5}])
    payload: str = Field(description="As it came, base64.")
    payload_text: str | None = Field(description="The same as text, where it is UTF-8.")


class RejectedRecord(BaseModel):
    seq: int
    record: str = Field(description="Epoch and number of the record.", examples=["5f1c8a526f5e4c8b/12480"])
    code: str = Field(examples=["undecodable"])
    detail: str = Field(examples=["not JSON: invalid character (byte 0)"])
    network_id: str = Field(examples=["demo"])
    alias_key: str = Field(examples=["serial"])
    alias: str = Field(examples=["bench-01"])
    topic: str = Field(examples=["up"])
    codec: str = Field(description="The listener's hint; empty: the network's codec.", examples=[""])
    received_time: int
    payload: str = Field(description="As it came, base64.")
    payload_text: str | None = Field(description="The same as text, where it is UTF-8.")


class RejectedFrom(BaseModel):
    """Records of one name that were rejected for one reason."""

    network_id: str = Field(examples=["demo"])
    alias_key: str = Field(examples=["serial"])
    alias: str = Field(examples=["bench-01"])
    code: str = Field(examples=["undecodable"])
    records: int = Field(examples=[3])
    first_received: int = Field(description="Unix milliseconds.")
    last_received: int = Field(description="Unix milliseconds.")
    last_detail: str = Field(examples=["not JSON: invalid character (byte 0)"])


class RejectGroups(BaseModel):
    count: int
    items: list[RejectedFrom]
    next: None = None


@router.get("/inbox", responses={200: {"model": Page[InboxMessage]}})
async def list_inbox(context: Context, project: ReadableProject, limit: Limit = 100, cursor: Cursor = None) -> Response:
    """Messages of unknown devices, the newest first. Once the device exists, they are stored, and gone from here."""
    async with context.database.connection() as conn:
        rows = await inbox.page(conn, project, after=decode_cursor(cursor, int), limit=limit + 1)
    return raw_page(rows, limit, lambda row: row.seq, _waiting)


@router.get("/inbox/groups", responses={200: {"model": InboxGroups}})
async def group_inbox(context: Context, project: ReadableProject) -> Response:
    """Who is unknown, and how many messages wait for each."""
    async with context.database.connection() as conn:
        rows = await inbox.groups(conn, project)
    return raw_json({"count": len(rows), "items": rows, "next": None})


@router.get("/rejects", responses={200: {"model": Page[RejectedRecord]}})
async def list_rejects(
    context: Context,
    project: ReadableProject,
    network_id: Annotated[str | None, Query(max_length=200, examples=["demo"])] = None,
    code: Annotated[str | None, Query(max_length=200, examples=["undecodable"])] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Response:
    """Records that did not decode, with their bytes and the reason, the newest first. Once the codec is mended,
    `POST /rejects/replay` decodes them again."""
    wanted = RejectFilter(network_id, code)
    async with context.database.connection() as conn:
        rows = await rejects.page(conn, project, wanted, after=decode_cursor(cursor, int), limit=limit + 1)
    return raw_page(rows, limit, lambda row: row.seq, _rejected)


@router.get("/rejects/groups", responses={200: {"model": RejectGroups}})
async def group_rejects(context: Context, project: ReadableProject) -> Response:
    """Whose records do not decode, and why."""
    async with context.database.connection() as conn:
        rows = await rejects.groups(conn, project)
    return raw_json({"count": len(rows), "items": rows, "next": None})


@router.post("/rejects/{seq}/decode", responses={200: {"model": Decoding}})
async def decode_reject(
    seq: Annotated[int, Path(ge=1, le=2**62, description="The reject's `seq`.", examples=[1])],
    context: Context,
    project: ReadableProject,
    body: CodecTry | None = None,
) -> Response:
    """What its network's codec as it is now, or another one, makes of a rejected record. Nothing is changed."""
    async with context.database.connection() as conn:
        row = await rejects.get(conn, project, seq)
        try:
            own = (await networks.get(conn, project, row.network_id)).spec
        except NotFoundError:
            own = CodecSpec(row.codec or "json")
    return tried(own if body is None else body.spec(own), row.codec, row.payload)


def _waiting(row: InboxRow) -> dict[str, Any]:
    return {
        "seq": row.seq,
        "id": str(uuid.UUID(bytes=row.id)),
        "network_id": row.network_id,
        "alias_key": row.alias_key,
        "alias": row.alias,
        "time": row.time,
        "received_time": row.received_time,
        "event_time": row.event_time,
        "replaying": row.replay_seq is not None,
        "data": msgspec.Raw(row.data),
        **_payload(row.payload),
    }


def _rejected(row: RejectRow) -> dict[str, Any]:
    return {
        "seq": row.seq,
        "record": f"{row.epoch:016x}/{row.record_seq}",
        "code": row.code,
        "detail": row.detail,
        "network_id": row.network_id,
        "alias_key": row.alias_key,
        "alias": row.alias,
        "topic": row.topic,
        "codec": row.codec,
        "received_time": row.received_time,
        **_payload(row.payload),
    }


def _payload(payload: bytes) -> dict[str, str | None]:
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        text = None
    return {"payload": base64.b64encode(payload).decode(), "payload_text": text}
