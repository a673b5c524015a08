"""API keys: for programs, and for devices that send over HTTP."""

from __future__ import annotations

import datetime
import uuid
from typing import Annotated, Final

from pydantic import AwareDatetime, Field

from cloud.api.auth import key_text
from cloud.api.context import Context
from cloud.api.fields import Body, CreatedAt, Resource, Title
from cloud.api.pages import Cursor, Limit, Page, decode_cursor, make_page
from cloud.api.problems import invalid
from cloud.api.routing import needs, resource
from cloud.api.tenancy import ID_PATTERN, InProject, forbidden
from cloud.db import api_keys
from cloud.db.secrets import new_secret, sha256_hex
from cloud.model.access import PERMISSIONS, Access, Permission

router = resource("/api-keys", "access")

SYSTEMS_MAX: Final = 1000


class NewApiKey(Body):
    name: Title = Field(examples=["weather import"])
    permissions: list[Permission] = Field(min_length=1, examples=[["ingest"]])
    system_ids: Annotated[list[Annotated[str, Field(pattern=ID_PATTERN)]], Field(max_length=SYSTEMS_MAX)] | None = (
        Field(default=None, description="In these systems only; null: in the whole project.", examples=[["harbour"]])
    )
    expires_at: AwareDatetime | None = Field(default=None, description="RFC 3339; null: never.")


class ApiKey(Resource):
    id: uuid.UUID
    name: str = Field(examples=["weather import"])
    permissions: list[Permission] = Field(examples=[["ingest"]])
    system_ids: list[str] | None = Field(description="null: the whole project.", examples=[["harbour"]])
    by: str = Field(description="Who made it.", examples=["user:anna"])
    created_at: CreatedAt
    expires_at: datetime.datetime | None
    last_used_at: datetime.datetime | None = Field(description="To a minute.")


class CreatedApiKey(ApiKey):
    key: str = Field(description="Shown this once: send it as `Authorization: Bearer …`.")


@router.get("", openapi_extra=needs("administer"))
async def list_api_keys(tenant: InProject, limit: Limit = 100, cursor: Cursor = None) -> Page[ApiKey]:
    """By name."""
    async with tenant.connection() as conn:
        rows = await api_keys.page(conn, tenant.project_id, after=decode_cursor(cursor, str), limit=limit + 1)
    return make_page(rows, limit, lambda row: row.name, _shown)


@router.post("", status_code=201, openapi_extra=needs("administer", secret=True))
async def create_api_key(body: NewApiKey, tenant: InProject, context: Context) -> CreatedApiKey:
    """The key itself is shown once; its SHA-256 is kept. It may do what you may, at most."""
    permissions = frozenset(body.permissions)
    wanted = (
        Access(permissions)
        if body.system_ids is None
        else Access(by_system=dict.fromkeys(body.system_ids, permissions))
    )
    if not tenant.access.covers(wanted):
        raise forbidden("nobody may give more than they have")
    if body.expires_at is not None and body.expires_at.timestamp() * 1000 <= context.wall_ms():
        raise invalid("expires_at", "is past", remedy="choose a later time, or leave it out")
    secret = new_secret()
    row = await tenant.run(
        lambda conn: api_keys.create(
            conn, tenant.project_id, body.name, sha256_hex(secret), permissions, body.system_ids,
            tenant.principal.actor, body.expires_at,
        )
    )  # fmt: skip
    return CreatedApiKey(**_shown(row).model_dump(), key=key_text(row.id, secret))


@router.delete("/{key_id}", status_code=204, openapi_extra=needs("administer"))
async def delete_api_key(key_id: uuid.UUID, tenant: InProject) -> None:
    """Whoever has it is refused from now on."""
    await tenant.run(lambda conn: api_keys.delete(conn, tenant.project_id, key_id))


def _shown(row: api_keys.ApiKey) -> ApiKey:
    permissions = [permission for permission in PERMISSIONS if permission in row.permissions]
    return ApiKey(
        id=row.id, name=row.name, permissions=permissions, system_ids=row.system_ids, by=row.by,
        created_at=row.created_at, expires_at=row.expires_at, last_used_at=row.last_used_at,
    )  # fmt: skip
