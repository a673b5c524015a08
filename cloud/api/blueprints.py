"""Blueprints."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, Final

import msgspec
from fastapi import Path, Response
from pydantic import Field, StrictFloat, StrictInt, StrictStr

from cloud.api.context import Context
from cloud.api.etag import ExpectedRevision, set_etag
from cloud.api.fields import (
    Body,
    ChosenId,
    CreatedAt,
    Name,
    Resource,
    Revision,
    RouteField,
    Title,
    check_route,
)
from cloud.api.pages import Cursor, Limit, Page, decode_cursor, make_page
from cloud.api.problems import invalid
from cloud.api.routing import needs, resource
from cloud.api.tenancy import ID_PATTERN, InProject
from cloud.db import blueprints
from cloud.db.blueprints import BlueprintChanges, Kind
from cloud.model.attribute import Attribute as AttributeRow
from cloud.model.attribute import AttributeType, Cardinality
from cloud.model.blueprint import ENUMERATION_MAX, FORWARDED_MAX, DeclarationError, checked

router = resource("/blueprints", "blueprints")
BlueprintPath = Annotated[str, Path(pattern=ID_PATTERN, examples=["pump"])]

ATTRIBUTES_MAX: Final = 1000
"""Of one blueprint: larger models are several devices."""


Number = StrictInt | StrictFloat


class Attribute(Body):
    type: AttributeType = Field(examples=["number"])
    unit: str | None = Field(
        default=None, max_length=32, description="Of a number, as people write it.", examples=["°C"]
    )
    description: str = Field(default="", max_length=1000)
    minimum: Number | None = Field(default=None, description="Of a number or integer.", examples=[-40])
    maximum: Number | None = Field(default=None, description="Of a number or integer.", examples=[120])
    enumeration: list[StrictStr | Number] = Field(
        default=[], max_length=ENUMERATION_MAX, description="The only values there are; empty: any.", examples=[[]]
    )
    default: Any = Field(
        default=None, description="Shown of a device that has not said it; null: nothing.", examples=[20.0]
    )
    history: bool = Field(default=True, description="False: its current value is kept, and nothing else.")
    blueprint: str | None = Field(
        default=None,
        pattern=ID_PATTERN,
        description="Of a relationship: the blueprint of the devices that it leads to, its children.",
        examples=[None],
    )
    cardinality: Cardinality | None = Field(
        default=None,
        description="Of a relationship: from parents, which are of this blueprint, to children.",
        examples=[None],
    )
    forward: dict[Name, Name] = Field(
        default={},
        max_length=FORWARDED_MAX,
        description="Of a relationship: attributes of a child that are attributes of its parent, too, and what they "
        "are called there.",
        examples=[{}],
    )


Attributes = Annotated[
    dict[Name, Attribute],
    Field(
        max_length=ATTRIBUTES_MAX,
        description="By their paths in the data: `temperature`, `meta.serial`; `\\.` is a point in a name.",
        examples=[{"temperature": {"type": "number", "unit": "°C", "minimum": -40, "maximum": 120}}],
    ),
]


KindField = Annotated[Kind, Field(description="Of devices, or of groups of them; for good.", examples=["device"])]


class NewBlueprint(Body):
    id: ChosenId = Field(examples=["pump"])
    name: Title = Field(examples=["Pump"])
    kind: KindField = "device"
    attributes: Attributes = Field(default_factory=dict)
    route: RouteField = None


class BlueprintChange(Body):
    name: Title | None = None
    attributes: Attributes | None = None
    route: RouteField = None


class Blueprint(Resource):
    project_id: str = Field(examples=["demo"])
    id: str = Field(examples=["pump"])
    name: str = Field(examples=["Pump"])
    kind: KindField
    attributes: dict[str, Attribute]
    route: RouteField
    revision: Revision
    created_at: CreatedAt
    version: int = Field(description="1, and 1 more with each change.", examples=[3])
    changed_at: CreatedAt


@router.get("", openapi_extra=needs("list", anywhere=True))
async def list_blueprints(
    context: Context, tenant: InProject, limit: Limit = 100, cursor: Cursor = None
) -> Page[Blueprint]:
    """By id."""
    async with tenant.connection() as conn:
        rows = await blueprints.page(conn, tenant.project_id, after=decode_cursor(cursor, str), limit=limit + 1)
    return make_page(rows, limit, lambda row: row.id, shown)


@router.post("", status_code=201)
async def create_blueprint(body: NewBlueprint, context: Context, tenant: InProject, response: Response) -> Blueprint:
    """The data model of a kind of device: its attributes by name."""
    check_route(body.route, context.settings.routable)
    row = await tenant.run(
        lambda conn: blueprints.create(
            conn,
            tenant.project_id,
            body.id,
            name=body.name,
            attributes=attribute_rows(body.attributes),
            route=body.route,
            kind=body.kind,
        )
    )
    set_etag(response, row.revision)
    return shown(row)


@router.get("/{blueprint_id}", openapi_extra=needs("read", anywhere=True))
async def get_blueprint(
    blueprint_id: BlueprintPath, context: Context, tenant: InProject, response: Response
) -> Blueprint:
    """One blueprint, as it is now."""
    async with tenant.connection() as conn:
        row = await blueprints.get(conn, tenant.project_id, blueprint_id)
    set_etag(response, row.revision)
    return shown(row)


@router.patch("/{blueprint_id}")
async def change_blueprint(
    blueprint_id: BlueprintPath,
    body: BlueprintChange,
    context: Context,
    tenant: InProject,
    expected: ExpectedRevision,
    response: Response,
) -> Blueprint:
    """Changes the fields that are given; attributes are replaced as a whole; a route of null is the default."""
    changes = changes_of(body, context.settings.routable)
    row = await tenant.run(lambda conn: blueprints.update(conn, tenant.project_id, blueprint_id, changes, expected))
    set_etag(response, row.revision)
    return shown(row)


@router.delete("/{blueprint_id}", status_code=204)
async def delete_blueprint(
    blueprint_id: BlueprintPath, context: Context, tenant: InProject, expected: ExpectedRevision
) -> None:
    """Refused while devices are of it."""
    await tenant.run(lambda conn: blueprints.delete(conn, tenant.project_id, blueprint_id, expected))


def changes_of(body: BlueprintChange, routable: Collection[str]) -> BlueprintChanges:
    """Raises a problem for what makes no sense."""
    check_route(body.route, routable)
    changes = BlueprintChanges()
    if body.name is not None:
        changes["name"] = body.name
    if body.attributes is not None:
        changes["attributes"] = attribute_rows(body.attributes)
    if "route" in body.model_fields_set:
        changes["route"] = body.route
    return changes


def attribute_rows(attributes: dict[str, Attribute]) -> dict[str, AttributeRow]:
    rows = {
        name: AttributeRow(**(attribute.model_dump() | {"enumeration": tuple(attribute.enumeration)}))
        for name, attribute in attributes.items()
    }
    try:
        return checked(rows)
    except DeclarationError as error:
        field = f"attributes.{error.attribute}" + (f".{error.field}" if error.field else "")
        raise invalid(field, error.detail, limit=error.limit) from None


def shown(row: blueprints.Blueprint) -> Blueprint:
    return Blueprint.model_validate(msgspec.to_builtins(row, builtin_types=()))
