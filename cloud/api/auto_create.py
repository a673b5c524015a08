"""Automatic creation: the unknown devices of a network come to be by themselves."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Path
from pydantic import AfterValidator, Field

from cloud.api.fields import Body, Title
from cloud.api.routing import needs, resource
from cloud.api.tenancy import ID_PATTERN, InProject
from cloud.db import auto_create
from cloud.db.auto_create import AutoCreate as AutoCreateRow
from cloud.db.database import Connection
from cloud.model.auto_create import TemplateError, check_template

router = resource("/networks/{network_id}/auto-create", "networks")
NetworkPath = Annotated[str, Path(pattern=ID_PATTERN, examples=["demo"])]

DEVICES_DEFAULT: Final = 1000
DEVICES_MAX: Final = 1_000_000
"""Devices of one network: whoever has its credential can make up names."""


def _template(text: str) -> str:
    try:
        check_template(text)
    except TemplateError as error:
        raise ValueError(str(error)) from None
    return text


class AutoCreate(Body):
    """An unknown name that is heard on the network becomes a device, once, and its messages are stored."""

    system_id: str = Field(pattern=ID_PATTERN, examples=["harbour"])
    blueprint_id: str = Field(pattern=ID_PATTERN, examples=["pump"])
    name: Annotated[Title, AfterValidator(_template)] = Field(
        default="{alias}",
        description="What they are called; {alias}, {key}, {network}.",
        examples=["Pump {alias}"],
    )
    devices_max: int = Field(
        default=DEVICES_DEFAULT,
        ge=1,
        le=DEVICES_MAX,
        description="Devices of the network, however they came: at this number no more are created, and messages of "
        "unknown ones wait in the inbox as ever.",
    )


class AutoCreateInForce(AutoCreate):
    devices: int = Field(description="Devices that the network has now.", examples=[17])


@router.get("")
async def get_auto_create(network_id: NetworkPath, tenant: InProject) -> AutoCreateInForce:
    """404: it is not wanted; unknown devices wait in the inbox."""
    async with tenant.connection() as conn:
        return await _shown(conn, tenant.project_id, network_id)


@router.put("", openapi_extra=needs("create"))
async def put_auto_create(network_id: NetworkPath, body: AutoCreate, tenant: InProject) -> AutoCreateInForce:
    """Also for those that wait in the inbox already. At most 200 devices a second are created."""

    async def put(conn: Connection) -> AutoCreateInForce:
        await auto_create.put(conn, AutoCreateRow(tenant.project_id, network_id, **body.model_dump()))
        return await _shown(conn, tenant.project_id, network_id)

    return await tenant.run(put)


@router.delete("", status_code=204)
async def delete_auto_create(network_id: NetworkPath, tenant: InProject) -> None:
    """Unknown devices wait in the inbox from now on; those that were created stay."""
    await tenant.run(lambda conn: auto_create.delete(conn, tenant.project_id, network_id))


async def _shown(conn: Connection, project_id: str, network_id: str) -> AutoCreateInForce:
    row = await auto_create.get(conn, project_id, network_id)
    return AutoCreateInForce(
        system_id=row.system_id,
        blueprint_id=row.blueprint_id,
        name=row.name,
        devices_max=row.devices_max,
        devices=await auto_create.devices_of(conn, project_id, network_id),
    )
