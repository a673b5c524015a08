"""Systems."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import Field

from cloud.api.auth import Viewer
from cloud.api.context import Context
from cloud.api.fields import Body, ChosenId, CreatedAt, ProjectField, Resource, Title
from cloud.api.pages import Cursor, Limit, Page, decode_cursor, make_page
from cloud.api.tenancy import ID_PATTERN, ProjectParameter, ReadableProject, WritableProject, project_of
from cloud.db import systems

router = APIRouter(prefix="/systems", tags=["systems"])
SystemPath = Annotated[str, Path(pattern=ID_PATTERN, examples=["harbour"])]


class NewSystem(Body):
    id: ChosenId = Field(examples=["harbour"])
    name: Title = Field(examples=["Harbour"])
    project_id: ProjectField = None


class SystemChange(Body):
    name: Title


class System(Resource):
    project_id: str = Field(examples=["demo"])
    id: str = Field(examples=["harbour"])
    name: str = Field(examples=["Harbour"])
    created_at: CreatedAt


@router.get("")
async def list_systems(
    context: Context, project: ReadableProject, limit: Limit = 100, cursor: Cursor = None
) -> Page[System]:
    """By id."""
    async with context.database.connection() as conn:
        rows = await systems.page(conn, project, after=decode_cursor(cursor, str), limit=limit + 1)
    return make_page(rows, limit, lambda row: row.id, System.model_validate)


@router.post("", status_code=201)
async def create_system(
    body: NewSystem, context: Context, viewer: Viewer, project_id: ProjectParameter = None
) -> System:
    project = await project_of(context, viewer, body.project_id or project_id, to_write=True)
    row = await context.database.run(lambda conn: systems.create(conn, project, body.id, body.name))
    return System.model_validate(row)


@router.get("/{system_id}")
async def get_system(system_id: SystemPath, context: Context, project: ReadableProject) -> System:
    async with context.database.connection() as conn:
        return System.model_validate(await systems.get(conn, project, system_id))


@router.patch("/{system_id}")
async def change_system(
    system_id: SystemPath, body: SystemChange, context: Context, project: WritableProject
) -> System:
    row = await context.database.run(lambda conn: systems.rename(conn, project, system_id, body.name))
    return System.model_validate(row)


@router.delete("/{system_id}", status_code=204)
async def delete_system(system_id: SystemPath, context: Context, project: WritableProject) -> None:
    """Refused while devices are in it."""
    await context.database.run(lambda conn: systems.delete(conn, project, system_id))
