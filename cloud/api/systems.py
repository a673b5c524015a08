"""Systems."""

from __future__ import annotations

from pydantic import Field

from cloud.api.context import Context
from cloud.api.fields import Body, ChosenId, CreatedAt, Resource, Title
from cloud.api.pages import Cursor, Limit, Page, decode_cursor, make_page
from cloud.api.routing import needs, resource
from cloud.api.tenancy import InProject, InSystem, SystemPath
from cloud.db import systems

router = resource("/systems", "systems")


class NewSystem(Body):
    id: ChosenId = Field(examples=["harbour"])
    name: Title = Field(examples=["Harbour"])


class SystemChange(Body):
    name: Title


class System(Resource):
    project_id: str = Field(examples=["demo"])
    id: str = Field(examples=["harbour"])
    name: str = Field(examples=["Harbour"])
    created_at: CreatedAt


@router.get("", openapi_extra=needs("list", anywhere=True))
async def list_systems(context: Context, tenant: InProject, limit: Limit = 100, cursor: Cursor = None) -> Page[System]:
    """By id."""
    async with tenant.connection() as conn:
        rows = await systems.page(
            conn, tenant.project_id, tenant.systems("list"), after=decode_cursor(cursor, str), limit=limit + 1
        )
    return make_page(rows, limit, lambda row: row.id, System.model_validate)


@router.post("", status_code=201)
async def create_system(body: NewSystem, context: Context, tenant: InProject) -> System:
    """A collection of devices that users are given access to."""
    row = await tenant.run(lambda conn: systems.create(conn, tenant.project_id, body.id, body.name))
    return System.model_validate(row)


@router.get("/{system_id}")
async def get_system(system_id: SystemPath, tenant: InSystem) -> System:
    """One system."""
    async with tenant.connection() as conn:
        return System.model_validate(await systems.get(conn, tenant.project_id, system_id))


@router.patch("/{system_id}")
async def change_system(system_id: SystemPath, body: SystemChange, tenant: InSystem) -> System:
    """Renames it."""
    row = await tenant.run(lambda conn: systems.rename(conn, tenant.project_id, system_id, body.name))
    return System.model_validate(row)


@router.delete("/{system_id}", status_code=204)
async def delete_system(system_id: SystemPath, tenant: InSystem) -> None:
    """Refused while devices are in it."""
    await tenant.run(lambda conn: systems.delete(conn, tenant.project_id, system_id))
