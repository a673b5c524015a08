"""What waits: messages of unknown devices, and records that do not decode."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec
from fastapi import Path, Query, Response
from pydantic import BaseModel, Field

from cloud.api.context import Context
from cloud.api.decoding import CodecTry, Decoding, tried
from cloud.api.devices import Device
from cloud.api.etag import set_etag
from cloud.api.fields import Body, ChosenId, Title
from cloud.api.pages import Cursor, Limit, Page, decode_cursor, raw_json, raw_page
from cloud.api.problems import invalid
from cloud.api.routing import needs, resource
from cloud.api.tenancy import ID_PATTERN, InProject
from cloud.db import blueprints, devices, inbox, networks, rejects
from cloud.db.database import Connection
from cloud.db.errors import NotFoundError
from cloud.model.attribute import Attribute
from cloud.model.rejected import RejectFilter, RejectRow
from cloud.model.suggestion import drafted, plain_title, suggested
from cloud.model.unresolved import InboxRow
from protocols.codecs import CodecSpec
from sync.registry import Alias

router = resource("", "data")
BLUEPRINTS_MAX: Final = 1000
"""That are looked at for a suggestion, by id."""


class WaitingFrom(BaseModel):
    """Messages of one unknown name."""

    network_id: str = Field(examples=["demo"])
    alias_key: str = Field(examples=["serial"])
    alias: str = Field(examples=["bench-02"])
    messages: int = Field(examples=[12])
    first_received: int = Field(description="Unix milliseconds.", examples=[1772353800012])
    last_received: int = Field(description="Unix milliseconds.", examples=[1772353860012])
    data: dict[str, Any] = Field(description="Of its newest message.", examples=[{"temperature": 71.5}])
    payload: str = Field(description="Of its newest record, as it came, base64.")
    payload_text: str | None = Field(description="The same as text, where it is UTF-8.")
    suggested_blueprint: str | None = Field(
        description="The blueprint that has most of the newest message's attributes, with types that fit; null: none "
        "has any.",
        examples=["pump"],
    )
    suggested_fitting: int = Field(description="How many of them it has.", examples=[1])


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
async def list_inbox(context: Context, tenant: InProject, limit: Limit = 100, cursor: Cursor = None) -> Response:
    """Messages of unknown devices, the newest first. Once the device exists, they are stored, and gone from here."""
    async with tenant.connection() as conn:
        rows = await inbox.page(conn, tenant.project_id, after=decode_cursor(cursor, int), limit=limit + 1)
    return raw_page(rows, limit, lambda row: row.seq, _waiting)


@router.get("/inbox/groups", responses={200: {"model": Page[WaitingFrom]}})
async def group_inbox(
    context: Context,
    tenant: InProject,
    network_id: Annotated[str | None, Query(max_length=200, examples=["demo"])] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Response:
    """Who is unknown, and how many messages wait for each; who was heard last comes first. One call makes the device:
    `POST /inbox/groups/{network:key:alias}/device`."""
    async with tenant.connection() as conn:
        rows = await inbox.groups(
            conn, tenant.project_id, network_id=network_id, after=decode_cursor(cursor, int), limit=limit + 1
        )
        known = await _blueprints(conn, tenant.project_id)
    return raw_page(rows, limit, lambda row: row.newest, lambda row: _group(row, known))


class DeviceOfGroup(Body):
    """The device that messages of one unknown name wait for."""

    system_id: str = Field(pattern=ID_PATTERN, examples=["harbour"])
    name: Title | None = Field(default=None, description="The alias, if it is left out.")
    blueprint_id: Annotated[str, Field(pattern=ID_PATTERN)] | None = Field(
        default=None, description="The suggested one, if it is left out.", examples=["pump"]
    )
    new_blueprint: ChosenId | None = Field(
        default=None, description="Make a blueprint of this id from the newest message, and take it.", examples=[None]
    )


class MadeDevice(Device):
    messages: int = Field(description="That waited for it, and are on their way to its history.", examples=[12])


@router.post("/inbox/groups/{group:path}/device", status_code=201)
async def create_device_of_group(
    group: Annotated[str, Path(description="`network:key:alias`", max_length=400, examples=["demo:serial:bench-02"])],
    body: DeviceOfGroup,
    context: Context,
    tenant: InProject,
    response: Response,
) -> MadeDevice:
    """Creates the device that has this alias; all that waits for it is stored."""
    parts = group.split(":", 2)
    if len(parts) != 3 or not all(parts):
        raise invalid("group", f"{group!r} is no alias", remedy="write it as network:key:alias")
    if body.blueprint_id is not None and body.new_blueprint is not None:
        raise invalid("new_blueprint", "goes without blueprint_id")
    alias = Alias(*parts)

    async def create(conn: Connection) -> tuple[devices.Device, int]:
        waiting = await inbox.group(conn, tenant.project_id, *parts)
        blueprint_id = body.blueprint_id or await _chosen_blueprint(
            conn, tenant.project_id, waiting, body.new_blueprint
        )
        name = body.name or plain_title(alias.alias)
        made = await devices.create(
            conn, tenant.project_id, system_id=body.system_id, blueprint_id=blueprint_id, name=name, aliases=[alias]
        )
        return made, waiting.messages

    row, messages = await tenant.run(create)
    set_etag(response, row.revision)
    return MadeDevice(**Device.model_validate(row).model_dump(), messages=messages)


async def _chosen_blueprint(conn: Connection, project: str, waiting: inbox.InboxGroup, new: str | None) -> str:
    if new is not None:
        return (await blueprints.create(conn, project, new, name=new, attributes=drafted(waiting.data))).id
    found = suggested(waiting.data, await _blueprints(conn, project))
    if found is None:
        raise invalid(
            "blueprint_id",
            "no blueprint has any of the attributes of its newest message",
            remedy="name one, or have one made from it: new_blueprint",
        )
    return found.blueprint_id


async def _blueprints(conn: Connection, project: str) -> list[tuple[str, dict[str, Attribute]]]:
    return [(row.id, row.attributes) for row in await blueprints.page(conn, project, limit=BLUEPRINTS_MAX)]


@router.get("/rejects", responses={200: {"model": Page[RejectedRecord]}})
async def list_rejects(
    context: Context,
    tenant: InProject,
    network_id: Annotated[str | None, Query(max_length=200, examples=["demo"])] = None,
    code: Annotated[str | None, Query(max_length=200, examples=["undecodable"])] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Response:
    """Records that did not decode, with their bytes and the reason, the newest first. Once the codec is mended,
    `POST /rejects/replay` decodes them again."""
    wanted = RejectFilter(network_id, code)
    async with tenant.connection() as conn:
        rows = await rejects.page(conn, tenant.project_id, wanted, after=decode_cursor(cursor, int), limit=limit + 1)
    return raw_page(rows, limit, lambda row: row.seq, _rejected)


@router.get("/rejects/groups", responses={200: {"model": RejectGroups}})
async def group_rejects(context: Context, tenant: InProject) -> Response:
    """Whose records do not decode, and why."""
    async with tenant.connection() as conn:
        rows = await rejects.groups(conn, tenant.project_id)
    return raw_json({"count": len(rows), "items": rows, "next": None})


@router.post("/rejects/{seq}/decode", openapi_extra=needs("read"), responses={200: {"model": Decoding}})
async def decode_reject(
    seq: Annotated[int, Path(ge=1, le=2**62, description="The reject's `seq`.", examples=[1])],
    context: Context,
    tenant: InProject,
    body: CodecTry | None = None,
) -> Response:
    """What its network's codec as it is now, or another one, makes of a rejected record. Nothing is changed."""
    async with tenant.connection() as conn:
        row = await rejects.get(conn, tenant.project_id, seq)
        try:
            own = (await networks.get(conn, tenant.project_id, row.network_id)).spec
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


def _group(row: inbox.InboxGroup, known: Sequence[tuple[str, dict[str, Attribute]]]) -> dict[str, Any]:
    found = suggested(row.data, known)
    return {
        "network_id": row.network_id,
        "alias_key": row.alias_key,
        "alias": row.alias,
        "messages": row.messages,
        "first_received": row.first_received,
        "last_received": row.last_received,
        "data": msgspec.Raw(row.data),
        **_payload(row.payload),
        "suggested_blueprint": None if found is None else found.blueprint_id,
        "suggested_fitting": 0 if found is None else found.fitting,
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
