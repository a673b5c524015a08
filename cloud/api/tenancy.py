"""Whose rows: the project of a request, checked once for all resources. A project that the user does not see is 404."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Depends, Path, Query

from cloud.api.auth import Viewer
from cloud.api.context import ApiContext, Context
from cloud.api.problems import Problem, invalid
from cloud.db import devices, tenancy
from cloud.db.tenancy import Viewer as ViewerRow
from sync.registry import Alias

ID_PATTERN: Final = "^[a-z0-9][a-z0-9_-]{0,62}$"
"""What people may call projects, systems, networks, blueprints and gateways: it stands in paths and topics."""
PROJECTS_NAMED_MAX: Final = 10
"""Projects that an ambiguous request is told of."""

ProjectParameter = Annotated[
    str | None,
    Query(
        alias="project_id",
        pattern=ID_PATTERN,
        description="The project. May be left out by a user who sees only one.",
        examples=["demo"],
    ),
]


async def project_of(context: ApiContext, viewer: ViewerRow, wanted: str | None, *, to_write: bool = False) -> str:
    """The project of a request that names `wanted`, or none. Raises NotFoundError; a problem: ambiguous, forbidden."""
    async with context.database.connection() as conn:
        if wanted is None:
            seen = await tenancy.visible(conn, viewer, PROJECTS_NAMED_MAX + 1)
            if len(seen) != 1:
                raise _ambiguous(seen)
            wanted = seen[0]
        role = await tenancy.role(conn, viewer, wanted)
    if to_write and role != "editor":
        raise forbidden(f"{viewer.name} may look at project {wanted}, not change it")
    return wanted


def forbidden(detail: str) -> Problem:
    return Problem(403, "forbidden", "Not allowed", detail, remedy="ask an administrator")


def _ambiguous(seen: list[str]) -> Problem:
    if not seen:
        detail, remedy = "you see no project", "ask an administrator for access, or create a project"
    else:
        names = ", ".join(seen[:PROJECTS_NAMED_MAX]) + (" and more" if len(seen) > PROJECTS_NAMED_MAX else "")
        detail, remedy = f"you see several projects: {names}", "name one as project_id"
    return Problem(409, "ambiguous-project", "Which project?", detail, field="project_id", remedy=remedy)


async def _readable(context: Context, viewer: Viewer, project_id: ProjectParameter = None) -> str:
    return await project_of(context, viewer, project_id)


async def _writable(context: Context, viewer: Viewer, project_id: ProjectParameter = None) -> str:
    return await project_of(context, viewer, project_id, to_write=True)


ReadableProject = Annotated[str, Depends(_readable)]
"""The id of the project that a request reads."""
WritableProject = Annotated[str, Depends(_writable)]
"""The id of the project that a request changes."""

DeviceParameter = Annotated[
    str,
    Path(
        description="A device: its id, or `network:key:alias`.",
        max_length=400,
        openapi_examples={"alias": {"value": "demo:serial:bench-01"}, "id": {"value": "17"}},
    ),
]
DeviceAt = tuple[str, int]
"""Project id and device id."""


async def device_at(
    context: ApiContext, viewer: ViewerRow, ref: str, project_id: str | None, *, to_write: bool = False
) -> DeviceAt:
    """Finds what a path calls a device. Raises NotFoundError, or a problem."""
    if ref.isascii() and ref.isdigit() and len(ref) <= len(str(2**63 - 1)) - 1:
        async with context.database.connection() as conn:
            found = await tenancy.project_of_device(conn, viewer, int(ref))
        if project_id is not None and project_id != found:
            raise Problem(404, "not-found", "Not found", f"there is no device {ref} in project {project_id}")
        return await project_of(context, viewer, found, to_write=to_write), int(ref)
    parts = ref.split(":", 2)
    if len(parts) != 3 or not all(parts):
        raise invalid("device", f"{ref!r} is no device", remedy="name it by its id or as network:key:alias")
    project = await project_of(context, viewer, project_id, to_write=to_write)
    async with context.database.connection() as conn:
        return project, await devices.find(conn, project, Alias(*parts))


async def _readable_device(
    context: Context, viewer: Viewer, device: DeviceParameter, project_id: ProjectParameter = None
) -> DeviceAt:
    return await device_at(context, viewer, device, project_id)


async def _writable_device(
    context: Context, viewer: Viewer, device: DeviceParameter, project_id: ProjectParameter = None
) -> DeviceAt:
    return await device_at(context, viewer, device, project_id, to_write=True)


ReadableDevice = Annotated[DeviceAt, Depends(_readable_device)]
WritableDevice = Annotated[DeviceAt, Depends(_writable_device)]
