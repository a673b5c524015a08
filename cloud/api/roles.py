"""Roles: sets of permissions, by name."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path
from pydantic import BaseModel, Field

from cloud.api.fields import Body, Title
from cloud.api.problems import invalid
from cloud.api.routing import needs, resource
from cloud.api.tenancy import ID_PATTERN, InProject, forbidden
from cloud.db import roles
from cloud.model.access import PERMISSIONS, ROLES, Access, Permission

router = resource("/roles", "access")
RolePath = Annotated[str, Path(pattern=ID_PATTERN, examples=["fitter"])]


class RoleBody(Body):
    name: Title = Field(examples=["Fitter"])
    permissions: list[Permission] = Field(examples=[["list", "read", "command"]])


class Role(BaseModel):
    id: str = Field(examples=["fitter"])
    name: str = Field(examples=["Fitter"])
    permissions: list[Permission] = Field(examples=[["list", "read", "command"]])
    built_in: bool = Field(description="Every project has it, and it does not change.")


class Roles(BaseModel):
    count: int
    items: list[Role]
    next: None = None


@router.get("", openapi_extra=needs("administer"))
async def list_roles(tenant: InProject) -> Roles:
    """Those that every project has, then its own by id."""
    async with tenant.connection() as conn:
        own = await roles.of_project(conn, tenant.project_id)
    items = [_shown(roles.Role(role_id, role_id.capitalize(), held)) for role_id, held in ROLES.items()]
    items += [_shown(role) for role in own]
    return Roles(count=len(items), items=items)


@router.put("/{role_id}", openapi_extra=needs("administer"))
async def put_role(role_id: RolePath, body: RoleBody, tenant: InProject) -> Role:
    """A role of the project's own. Who has it may do that from now on."""
    if role_id in ROLES:
        raise invalid("role_id", f"{role_id} is a role of every project", remedy="choose another id")
    role = roles.Role(role_id, body.name, frozenset(body.permissions))
    if not tenant.access.covers(Access(role.permissions)):
        raise forbidden("nobody may give more than they have")
    await tenant.run(lambda conn: roles.put(conn, tenant.project_id, role))
    return _shown(role)


@router.delete("/{role_id}", status_code=204, openapi_extra=needs("administer"))
async def delete_role(role_id: RolePath, tenant: InProject) -> None:
    """Refused while somebody has it."""
    await tenant.run(lambda conn: roles.delete(conn, tenant.project_id, role_id))


def _shown(role: roles.Role) -> Role:
    permissions = [permission for permission in PERMISSIONS if permission in role.permissions]
    return Role(id=role.id, name=role.name, permissions=permissions, built_in=role.id in ROLES)
