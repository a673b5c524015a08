"""Projects."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Request
from pydantic import Field

from cloud.api.auth import Principal
from cloud.api.context import Context
from cloud.api.fields import Body, ChosenId, CreatedAt, Resource, Title
from cloud.api.pages import Cursor, Limit, Page, decode_cursor, make_page
from cloud.api.routing import needs, resource
from cloud.api.tenancy import ID_PATTERN, Tenant, forbidden, tenant_of
from cloud.db import audit, projects
from cloud.db.database import Connection

router = resource("/projects", "projects")
ProjectPath = Annotated[str, Path(pattern=ID_PATTERN, examples=["demo"])]


class NewProject(Body):
    id: ChosenId = Field(examples=["demo"])
    name: Title = Field(examples=["Demonstration"])


class ProjectChange(Body):
    name: Title


class Project(Resource):
    id: str = Field(examples=["demo"])
    name: str = Field(examples=["Demonstration"])
    revision: int = Field(description="How often its networks, blueprints and devices have changed.", examples=[42])
    created_at: CreatedAt


@router.get("", openapi_extra=needs("user"))
async def list_projects(
    context: Context, principal: Principal, limit: Limit = 100, cursor: Cursor = None
) -> Page[Project]:
    """Those that you see, by id."""
    async with context.database.connection() as conn:
        rows = await projects.page(conn, principal, after=decode_cursor(cursor, str), limit=limit + 1)
    return make_page(rows, limit, lambda row: row.id, Project.model_validate)


@router.post("", status_code=201, openapi_extra=needs("user"))
async def create_project(body: NewProject, context: Context, principal: Principal) -> Project:
    """For administrators."""
    if not principal.admin:
        raise forbidden("only an administrator may create projects")

    async def create(conn: Connection) -> projects.Project:
        await audit.act_as(conn, principal.actor)
        return await projects.create(conn, body.id, body.name)

    return Project.model_validate(await context.database.run(create))


async def _named(request: Request, context: Context, principal: Principal, project_id: ProjectPath) -> Tenant:
    return await tenant_of(request, context, principal, project_id)


Named = Annotated[Tenant, Depends(_named)]


@router.get("/{project_id}", openapi_extra=needs("read", anywhere=True))
async def get_project(tenant: Named) -> Project:
    """A project that you see."""
    async with tenant.connection() as conn:
        return Project.model_validate(await projects.get(conn, tenant.project_id))


@router.patch("/{project_id}", openapi_extra=needs("administer"))
async def change_project(tenant: Named, body: ProjectChange) -> Project:
    """Renames it."""
    return Project.model_validate(await tenant.run(lambda conn: projects.rename(conn, tenant.project_id, body.name)))
