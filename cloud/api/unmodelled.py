"""What devices say beyond their blueprint."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import Response
from pydantic import BaseModel, Field

from cloud.api.blueprints import ATTRIBUTES_MAX, Blueprint, BlueprintPath, shown
from cloud.api.context import Context
from cloud.api.etag import ExpectedRevision, set_etag
from cloud.api.fields import Body, Name
from cloud.api.pages import raw_json
from cloud.api.problems import invalid
from cloud.api.routing import needs, resource
from cloud.api.tenancy import InProject
from cloud.db import blueprints, unmodelled
from cloud.db.database import Connection
from cloud.model.attribute import Attribute, AttributeType
from cloud.model.blueprint import DeclarationError, checked
from cloud.model.unmodelled import Unmodelled
from protocols.limits import NAME_BYTES_MAX

router = resource("/blueprints", "blueprints")


class UnmodelledPath(BaseModel):
    name: str = Field(description="Its path, as an attribute would be called.", examples=["meta.firmware"])
    devices: int = Field(description="That have such a current value.", examples=[12])
    kinds: dict[str, int] = Field(description="Devices by the value's JSON type.", examples=[{"string": 12}])
    type: AttributeType | None = Field(
        description="What an attribute for most of them would be; null: there is no type for it, as for arrays.",
        examples=["string"],
    )
    example: Any = Field(description="A value; null: all of them are long.", examples=["1.4.2"])


class UnmodelledPaths(BaseModel):
    count: int
    items: list[UnmodelledPath]
    next: None = None


class Adoption(Body):
    names: Annotated[list[Name], Field(max_length=ATTRIBUTES_MAX)] | None = Field(
        default=None, description="Which; null: all that there is a type for.", examples=[["meta.firmware"]]
    )


@router.get("/{blueprint_id}/unmodelled", responses={200: {"model": UnmodelledPaths}})
async def list_unmodelled(blueprint_id: BlueprintPath, context: Context, tenant: InProject) -> Response:
    """What its devices' current values hold that the blueprint does not name, what most devices have first: up to 1,000
    paths, of the newest 10,000 devices."""
    async with tenant.connection() as conn:
        found = await unmodelled.of_blueprint(conn, await blueprints.get(conn, tenant.project_id, blueprint_id))
    items = [
        {
            "name": one.name,
            "devices": one.devices,
            "kinds": one.kinds,
            "type": one.type,
            "example": None if one.example is None else msgspec.Raw(one.example),
        }
        for one in found
    ]
    return raw_json({"count": len(items), "items": items, "next": None})


@router.post("/{blueprint_id}/unmodelled", openapi_extra=needs("update"))
async def adopt_unmodelled(
    blueprint_id: BlueprintPath,
    context: Context,
    tenant: InProject,
    expected: ExpectedRevision,
    response: Response,
    body: Adoption | None = None,
) -> Blueprint:
    """Adds them to the blueprint, with the types that they are seen with."""

    async def adopt(conn: Connection) -> blueprints.Blueprint:
        held = await blueprints.get(conn, tenant.project_id, blueprint_id)
        found = {one.name: one for one in await unmodelled.of_blueprint(conn, held)}
        wanted = list(found) if body is None or body.names is None else body.names
        is_all = body is None or body.names is None
        added = {name: Attribute(one.type) for name in wanted if (one := _adoptable(found, name, is_all)) and one.type}
        attributes = held.attributes | added
        if len(attributes) > ATTRIBUTES_MAX:
            raise invalid("names", f"the blueprint would have {len(attributes)} attributes", limit=ATTRIBUTES_MAX)
        try:
            changes = blueprints.BlueprintChanges(attributes=checked(attributes))
        except DeclarationError as error:
            raise invalid(f"names.{error.attribute}", error.detail, limit=error.limit) from None
        return await blueprints.update(
            conn, tenant.project_id, blueprint_id, changes, held.revision if expected is None else expected
        )

    row = await tenant.run(adopt)
    set_etag(response, row.revision)
    return shown(row)


def _adoptable(found: dict[str, Unmodelled], name: str, is_all: bool) -> Unmodelled | None:
    """None: there is no way to name or type it, and nobody asked for it by name. Raises a problem where one did."""
    one = found.get(name)
    if one is not None and one.type is not None and len(name.encode()) <= NAME_BYTES_MAX and name.isprintable():
        return one
    if is_all:
        return None
    if one is None:
        raise invalid(
            "names", f"no device says {name!r}, or it is an attribute already", remedy="GET lists what there is"
        )
    raise invalid("names", f"there is no type for what devices say of {name!r}", remedy="declare it yourself")
