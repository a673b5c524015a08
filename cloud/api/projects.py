"""Projects."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import Field

from cloud.api.auth import Viewer
from cloud.api.context import Context
from cloud.api.fields import Body, ChosenId, CreatedAt, Resource, Title
from cloud.api.pages import Cursor, Limit, Page, decode_cursor, make_page
from cloud.api.tenancy import ID_PATTERN, forbidden, project_of
from cloud.db import projects

router = APIRouter(prefix="/projects", tags=["projects"])
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


@router.get("")
async def list_projects(context: Context, viewer: Viewer, limit: Limit = 100, cursor: Cursor = None) -> Page[Project]:
    """Those that you see, by id."""
    async with context.database.connection() as conn:
        rows = await projects.page(conn, viewer, after=decode_cursor(cursor, str), limit=limit + 1)
    return make_page(rows, limit, lambda row: row.id, Project.model_validate)


@router.post("", status_code=201)
async def create_project(body: NewProject, context: Context, viewer: Viewer) -> Project:
    """For administrators."""
    if not viewer.admin:
        raise forbidden("only an administrator may create projects")
    return Project.model_validate(await context.database.run(lambda conn: projects.create(conn, body.id, body.name)))


@router.get("/{project_id}")
async def get_project(project_id: ProjectPath, context: Context, viewer: Viewer) -> Project:
    project = await project_of(context, viewer, project_id)
    async with context.database.connection() as conn:
        return Project.model_validate(await projects.get(conn, project))


@router.patch("/{project_id}")
async def change_project(project_id: ProjectPath, body: ProjectChange, context: Context, viewer: Viewer) -> Project:
    project = await project_of(context, viewer, project_id, to_write=True)
    return Project.model_validate(await context.database.run(lambda conn: projects.rename(conn, project, body.name)))
