"""Networks, their codecs, and the credentials that let unknown devices in."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from fastapi import Path, Response
from pydantic import BaseModel, Field

from cloud.api.codec import Codec, shown, spec_of
from cloud.api.context import Context
from cloud.api.decoding import Decoding, Trying, tried
from cloud.api.etag import ExpectedRevision, set_etag
from cloud.api.fields import Body, ChosenId, CreatedAt, CredentialBody, Name, Resource, Revision, Title
from cloud.api.pages import Cursor, Limit, Page, decode_cursor, make_page
from cloud.api.routing import needs, resource
from cloud.api.tenancy import ID_PATTERN, InProject
from cloud.db import networks, rejects
from cloud.db.networks import NetworkChanges
from cloud.db.secrets import new_secret, sha256_hex
from cloud.model.rejected import RejectFilter
from protocols.codecs import CodecSpec, SpecError
from protocols.codecs.layout import units_of

router = resource("/networks", "networks")
TALK: Final = "Whether its devices may subscribe to what others of them publish, where their protocol can (MQTT)."
NetworkPath = Annotated[str, Path(pattern=ID_PATTERN, examples=["demo"])]


class NewNetwork(Body):
    id: ChosenId = Field(examples=["demo"])
    name: Title = Field(examples=["Demonstration devices"])
    alias_key: Name = Field(default="serial", description="The alias key of devices that connect under a plain name.")
    codec: Codec = Field(default_factory=lambda: Codec())
    device_talk: bool = Field(default=False, description=TALK)


class NetworkChange(Body):
    name: Title | None = None
    alias_key: Name | None = None
    codec: Codec | None = None
    device_talk: bool | None = None


class Network(Resource):
    project_id: str = Field(examples=["demo"])
    id: str = Field(examples=["demo"])
    name: str = Field(examples=["Demonstration devices"])
    alias_key: str = Field(examples=["serial"])
    codec: Codec
    units: dict[str, str] = Field(
        description="Attribute to unit, as the codec says: what blueprints may take. Data holds plain values.",
        examples=[{"temperature": "Cel"}],
    )
    device_talk: bool = Field(description=TALK, examples=[False])
    rejected_records: int | None = Field(
        default=None,
        description="In the answer to a change of the codec: how many records of the network wait under /rejects. "
        "`POST /rejects/replay` with its `network_id` decodes them again.",
        examples=[None],
    )
    credentials: int = Field(description="Secrets that let unknown devices in.", examples=[1])
    revision: Revision
    created_at: CreatedAt


class NetworkCredential(BaseModel):
    password: str = Field(description="Shown this once. Any device of the network may use it, under its own name.")
    credentials: Literal[1, 2] = Field(description="How many are valid now.")


@router.get("")
async def list_networks(
    context: Context, tenant: InProject, limit: Limit = 100, cursor: Cursor = None
) -> Page[Network]:
    """By id."""
    async with tenant.connection() as conn:
        rows = await networks.page(conn, tenant.project_id, after=decode_cursor(cursor, str), limit=limit + 1)
    return make_page(rows, limit, lambda row: row.id, _shown)


@router.post("", status_code=201)
async def create_network(body: NewNetwork, context: Context, tenant: InProject, response: Response) -> Network:
    """A source of device data, with the codec that reads it."""
    spec = spec_of(body.codec)
    row = await tenant.run(
        lambda conn: networks.create(
            conn,
            tenant.project_id,
            body.id,
            name=body.name,
            alias_key=body.alias_key,
            spec=spec,
            device_talk=body.device_talk,
        )
    )
    set_etag(response, row.revision)
    return _shown(row)


@router.get("/{network_id}")
async def get_network(network_id: NetworkPath, context: Context, tenant: InProject, response: Response) -> Network:
    """One network, with its codec."""
    async with tenant.connection() as conn:
        row = await networks.get(conn, tenant.project_id, network_id)
    set_etag(response, row.revision)
    return _shown(row)


@router.patch("/{network_id}")
async def change_network(
    network_id: NetworkPath,
    body: NetworkChange,
    context: Context,
    tenant: InProject,
    expected: ExpectedRevision,
    response: Response,
) -> Network:
    """Changes the fields that are given; a codec is replaced as a whole. What an earlier one rejected waits under
    /rejects, and can be decoded again."""
    changes = NetworkChanges()
    if body.name is not None:
        changes["name"] = body.name
    if body.alias_key is not None:
        changes["alias_key"] = body.alias_key
    if body.codec is not None:
        changes["spec"] = spec_of(body.codec)
    if body.device_talk is not None:
        changes["device_talk"] = body.device_talk
    row = await tenant.run(lambda conn: networks.update(conn, tenant.project_id, network_id, changes, expected))
    set_etag(response, row.revision)
    network = _shown(row)
    if body.codec is not None:
        async with tenant.connection() as conn:
            network.rejected_records, _ = await rejects.count(conn, tenant.project_id, RejectFilter(network_id))
    return network


@router.delete("/{network_id}", status_code=204)
async def delete_network(
    network_id: NetworkPath, context: Context, tenant: InProject, expected: ExpectedRevision
) -> None:
    """Refused while devices have aliases on it."""
    await tenant.run(lambda conn: networks.delete(conn, tenant.project_id, network_id, expected))


@router.post("/{network_id}/credentials", status_code=201, openapi_extra=needs("update", secret=True))
async def create_network_credential(
    network_id: NetworkPath, context: Context, tenant: InProject, body: CredentialBody | None = None
) -> NetworkCredential:
    """A secret for devices that have none of their own, also for unknown ones: their messages wait in the inbox."""
    secret = new_secret()
    keep = body is None or body.keep_previous
    row = await tenant.run(
        lambda conn: networks.add_secret(conn, tenant.project_id, network_id, sha256_hex(secret), keep_previous=keep)
    )
    return NetworkCredential(password=secret, credentials=2 if row.credentials == 2 else 1)


@router.delete("/{network_id}/credentials", status_code=204, openapi_extra=needs("update"))
async def delete_network_credentials(network_id: NetworkPath, context: Context, tenant: InProject) -> None:
    """From now on only devices with a credential of their own get in."""
    await tenant.run(lambda conn: networks.clear_secrets(conn, tenant.project_id, network_id))


@router.post("/{network_id}/decode", openapi_extra=needs("read"), responses={200: {"model": Decoding}})
async def decode_payload(network_id: NetworkPath, body: Trying, context: Context, tenant: InProject) -> Response:
    """What the network's codec, or another one, makes of a payload: its messages, or the byte and the reason. Nothing
    is recorded."""
    async with tenant.connection() as conn:
        row = await networks.get(conn, tenant.project_id, network_id)
    return tried(body.spec(row.spec), body.hint, body.bytes())


def _shown(row: networks.Network) -> Network:
    fields = msgspec.structs.asdict(row)
    spec: CodecSpec = fields.pop("spec")
    try:
        units = units_of(spec)
    except SpecError:  # of another version
        units = {}
    return Network(codec=shown(spec), units=units, **fields)
