"""Devices, their aliases and credentials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

from fastapi import Query, Response
from pydantic import BaseModel, Field

from cloud.api.context import Context
from cloud.api.etag import ExpectedRevision, set_etag
from cloud.api.events import DevicePresence, presence_shown
from cloud.api.fields import (
    Body,
    CreatedAt,
    CredentialBody,
    Name,
    Resource,
    Revision,
    RouteField,
    Title,
    check_route,
)
from cloud.api.pages import Cursor, Limit, Page, decode_cursor, make_page
from cloud.api.problems import Problem
from cloud.api.routing import needs, resource
from cloud.api.tenancy import ID_PATTERN, AtDevice, InProject
from cloud.db import devices, networks, presence, standings
from cloud.db.database import Connection
from cloud.db.devices import DeviceChanges, DeviceFilter
from cloud.db.errors import DanglingError, NotFoundError
from cloud.db.secrets import new_secret, sha256_hex
from sync.registry import Alias as AliasRow

router = resource("/devices", "devices")

ALIASES_MAX: Final = 32
"""Of one device: a name or two on each of a few networks."""

IdField = Annotated[str, Field(pattern=ID_PATTERN)]
IdQuery = Annotated[str | None, Query(pattern=ID_PATTERN)]
SearchQuery = Annotated[str | None, Query(min_length=1, max_length=200)]


class NewAlias(Body):
    network_id: IdField = Field(examples=["demo"])
    alias_key: Name | None = Field(default=None, description="The network's, if it is left out.", examples=["serial"])
    alias: Name = Field(examples=["bench-01"])


class Alias(Resource):
    network_id: str = Field(examples=["demo"])
    alias_key: str = Field(examples=["serial"])
    alias: str = Field(examples=["bench-01"])


class NewDevice(Body):
    system_id: IdField = Field(examples=["harbour"])
    blueprint_id: IdField = Field(examples=["pump"])
    name: Title = Field(examples=["Bilge pump, berth 7"])
    aliases: list[NewAlias] = Field(default=[], max_length=ALIASES_MAX)
    route: RouteField = None
    credential: bool = Field(default=False, description="Give it a credential of its own; needs an alias.")


class DeviceChange(Body):
    system_id: IdField | None = None
    blueprint_id: IdField | None = None
    name: Title | None = None
    aliases: Annotated[list[NewAlias], Field(max_length=ALIASES_MAX)] | None = None
    route: RouteField = None


class DeviceCredential(BaseModel):
    user: str = Field(description="The name to connect under.", examples=["bench-01"])
    password: str = Field(description="Shown this once; the cloud and the gateways keep its SHA-256 only.")


class Device(Resource):
    id: int = Field(examples=[17])
    project_id: str = Field(examples=["demo"])
    system_id: str = Field(examples=["harbour"])
    blueprint_id: str = Field(examples=["pump"])
    name: str = Field(examples=["Bilge pump, berth 7"])
    aliases: list[Alias]
    route: RouteField
    credentials: int = Field(description="Secrets of its own that are valid now.", examples=[1])
    revision: Revision
    created_at: CreatedAt


class DeviceInFull(Device):
    complete_until: int | None = Field(
        description="All that its gateways received before this time is in the databases, or listed under /gaps: "
        "nothing older is on its way. Unix milliseconds; null: not known, as where no gateway carried its messages.",
        examples=[1772353860012],
    )
    presence: DevicePresence | None = Field(description="Whether it is there; null: no gateway has said.")
    last_received: int | None = Field(
        description="When a gateway received its newest message, Unix milliseconds; null: there is none.",
        examples=[1772353860012],
    )


class CreatedDevice(Device):
    credential: DeviceCredential | None = Field(description="If it was asked for.")


@router.get("", openapi_extra=needs("list", anywhere=True))
async def list_devices(
    context: Context,
    tenant: InProject,
    search: Annotated[SearchQuery, Query(description="Start of a name or of an alias.")] = None,
    alias: Annotated[SearchQuery, Query(description="An alias, on any network.")] = None,
    network_id: IdQuery = None,
    system_id: IdQuery = None,
    blueprint_id: IdQuery = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[Device]:
    """By id; those that meet all of the conditions. Names and aliases are compared without regard to case."""
    wanted = DeviceFilter(system_id, blueprint_id, network_id, alias, search, tenant.systems("list"))
    async with tenant.connection() as conn:
        rows = await devices.page(conn, tenant.project_id, wanted, after=decode_cursor(cursor, int), limit=limit + 1)
    return make_page(rows, limit, lambda row: row.id, Device.model_validate)


@router.post("", status_code=201, openapi_extra=needs("create", anywhere=True, secret=True))
async def create_device(body: NewDevice, context: Context, tenant: InProject, response: Response) -> CreatedDevice:
    """Messages that came from it before, under one of its aliases, are taken out of the inbox and stored."""
    tenant.need("create", body.system_id)
    check_route(body.route, context.settings.routable)
    secret = new_secret() if body.credential else None

    async def create(conn: Connection) -> tuple[devices.Device, list[str]]:
        row = await devices.create(
            conn,
            tenant.project_id,
            system_id=body.system_id,
            blueprint_id=body.blueprint_id,
            name=body.name,
            aliases=await _alias_rows(conn, tenant.project_id, body.aliases),
            route=body.route,
            secret_sha256=sha256_hex(secret) if secret else None,
        )
        return row, await _connecting_names(conn, row) if secret else []

    row, names = await tenant.run(create)
    set_etag(response, row.revision)
    credential = DeviceCredential(user=names[0], password=secret) if secret else None
    return CreatedDevice(**Device.model_validate(row).model_dump(), credential=credential)


@router.get("/{device}")
async def get_device(context: Context, at: AtDevice, response: Response) -> DeviceInFull:
    """A device, whether it is there, and up to when its data is complete."""
    async with at.tenant.connection() as conn:
        row = await devices.get(conn, *at.place)
        complete_until = await standings.complete_until(conn, *at.place)
        seen = await presence.of_device(conn, *at.place)
        last_received = await presence.last_received(conn, *at.place)
    set_etag(response, row.revision)
    return DeviceInFull(
        **Device.model_validate(row).model_dump(),
        complete_until=complete_until,
        presence=None if seen is None else presence_shown(seen),
        last_received=last_received,
    )


@router.patch("/{device}")
async def change_device(
    context: Context, at: AtDevice, body: DeviceChange, expected: ExpectedRevision, response: Response
) -> Device:
    """Changes the fields that are given; aliases are replaced as a whole; a route of null is the blueprint's."""
    check_route(body.route, context.settings.routable)
    if body.system_id is not None:
        at.tenant.need("create", body.system_id)

    async def change(conn: Connection) -> devices.Device:
        changes = DeviceChanges()
        if body.system_id is not None:
            changes["system_id"] = body.system_id
        if body.blueprint_id is not None:
            changes["blueprint_id"] = body.blueprint_id
        if body.name is not None:
            changes["name"] = body.name
        if body.aliases is not None:
            changes["aliases"] = await _alias_rows(conn, at.tenant.project_id, body.aliases)
        if "route" in body.model_fields_set:
            changes["route"] = body.route
        return await devices.update(conn, *at.place, changes, expected)

    row = await at.tenant.run(change)
    set_etag(response, row.revision)
    return Device.model_validate(row)


@router.delete("/{device}", status_code=204)
async def delete_device(context: Context, at: AtDevice, expected: ExpectedRevision) -> None:
    """With its aliases and credentials. What it has said stays in history."""
    await at.tenant.run(lambda conn: devices.delete(conn, *at.place, expected))


@router.post("/{device}/credentials", status_code=201, openapi_extra=needs("update", secret=True))
async def create_device_credential(
    context: Context, at: AtDevice, body: CredentialBody | None = None
) -> DeviceCredential:
    """A credential of its own; from then on its network's does not let it in any more."""
    secret = new_secret()
    keep = body is None or body.keep_previous

    async def add(conn: Connection) -> list[str]:
        row = await devices.add_secret(conn, *at.place, sha256_hex(secret), keep_previous=keep)
        return await _connecting_names(conn, row)

    names = await at.tenant.run(add)
    return DeviceCredential(user=names[0], password=secret)


@router.delete("/{device}/credentials", status_code=204, openapi_extra=needs("update"))
async def delete_device_credentials(context: Context, at: AtDevice) -> None:
    """From now on it gets in by its network's credential, if that has one."""
    await at.tenant.run(lambda conn: devices.clear_secrets(conn, *at.place))


async def _alias_rows(conn: Connection, project: str, given: Sequence[NewAlias]) -> tuple[AliasRow, ...]:
    """With the networks' alias keys where none is given."""
    keys: dict[str, str] = {}
    for network_id in {alias.network_id for alias in given if alias.alias_key is None}:
        try:
            keys[network_id] = (await networks.get(conn, project, network_id)).alias_key
        except NotFoundError:
            raise DanglingError("aliases", "network", network_id) from None
    return tuple(AliasRow(alias.network_id, alias.alias_key or keys[alias.network_id], alias.alias) for alias in given)


async def _connecting_names(conn: Connection, row: devices.Device) -> list[str]:
    names = await devices.plain_names(conn, row.project_id, row.id)
    if not names:
        raise Problem(
            422,
            "invalid",
            "Invalid request",
            "a device without an alias has no name to connect under",
            field="aliases",
            remedy="give it an alias first",
        )
    return names
