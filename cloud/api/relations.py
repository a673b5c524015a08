"""Relations between devices."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Depends, Path, Request
from pydantic import Field

from cloud.api.auth import Principal
from cloud.api.context import Context
from cloud.api.fields import CreatedAt, Resource
from cloud.api.pages import Cursor, Limit, Page, decode_cursor, make_page
from cloud.api.problems import Problem, invalid
from cloud.api.routing import needs, resource
from cloud.api.tenancy import AtDevice, DeviceParameter, device_at
from cloud.db import relations
from cloud.db.relations import FullError, UnsuitedError
from cloud.model.attribute import Cardinality
from protocols.limits import NAME_BYTES_MAX

router = resource("/devices", "devices")

KeyPath = Annotated[
    str,
    Path(
        min_length=1,
        max_length=NAME_BYTES_MAX,
        description="The relationship: an attribute of the parent's blueprint.",
        examples=["pumps"],
    ),
]


class Relation(Resource):
    role: Literal["child", "parent"] = Field(description="Of the other device.", examples=["child"])
    key: str = Field(description="The relationship: an attribute of the parent's blueprint.", examples=["pumps"])
    device: int = Field(description="The other one.", examples=[17])
    name: str = Field(examples=["Bilge pump, berth 7"])
    blueprint_id: str = Field(description="Of the other one.", examples=["pump"])
    created_at: CreatedAt


class Linked(Resource):
    key: str = Field(examples=["pumps"])
    parent: int = Field(examples=[3])
    child: int = Field(examples=[17])
    cardinality: Cardinality = Field(examples=["1-N"])


@router.get("/{device}/relations")
async def list_relations(at: AtDevice, limit: Limit = 100, cursor: Cursor = None) -> Page[Relation]:
    """Its children and its parents, by relationship."""
    after = decode_cursor(cursor, tuple[str, str, int])
    async with at.tenant.connection() as conn:
        rows = await relations.page(conn, *at.place, systems=at.tenant.systems("read"), after=after, limit=limit + 1)
    return make_page(rows, limit, lambda row: (row.role, row.key, row.device), Relation.model_validate)


async def _other(request: Request, context: Context, principal: Principal, at: AtDevice, other: DeviceParameter) -> int:
    """Of the same project, and the caller has the route's permission for it, too."""
    return (await device_at(request, context, principal, other, at.tenant.project_id)).id


OtherDevice = Annotated[int, Depends(_other)]


@router.put("/{device}/relations/{key}/{other}")
async def put_relation(at: AtDevice, key: KeyPath, other: OtherDevice) -> Linked:
    """Makes the other device its child by this relationship. From then on what the child sends is forwarded to it, as
    the relationship says."""
    try:
        made = await at.tenant.run(lambda conn: relations.link(conn, *at.place, key, other))
    except UnsuitedError as error:
        raise invalid(error.field, str(error)) from None
    except FullError as error:
        raise Problem(
            409, "cardinality", "Has its relation already", str(error), field="key", limit=error.limit,
            remedy="take the other relation away first, or declare another cardinality",
        ) from None  # fmt: skip
    return Linked.model_validate(made)


@router.delete("/{device}/relations/{key}/{other}", status_code=204, openapi_extra=needs("update"))
async def delete_relation(at: AtDevice, key: KeyPath, other: OtherDevice) -> None:
    """What was forwarded stays."""
    await at.tenant.run(lambda conn: relations.unlink(conn, *at.place, key, other))
