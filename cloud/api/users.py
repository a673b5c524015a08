"""Users of a project, and what they may do in it."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Path
from pydantic import AfterValidator, BaseModel, Field

from cloud.api.context import Context
from cloud.api.fields import Body, plain
from cloud.api.pages import Cursor, Limit, Page, decode_cursor, make_page
from cloud.api.problems import invalid
from cloud.api.routing import needs, resource
from cloud.api.tenancy import ID_PATTERN, InProject, Tenant, forbidden
from cloud.db import audit, grants, users
from cloud.db.database import Connection
from cloud.db.errors import TakenError
from cloud.db.grants import Member

router = resource("/users", "access")

SYSTEMS_MAX: Final = 1000
"""That a user is limited to: more are better had by a role in the whole project."""

RoleId = Annotated[
    str,
    Field(pattern=ID_PATTERN, description="owner, editor, operator, viewer, or one of the project's own.",
          examples=["viewer"]),
]  # fmt: skip
UserName = Annotated[str, Field(min_length=1, max_length=users.NAME_CHARACTERS_MAX), AfterValidator(plain)]
UserPath = Annotated[str, Path(min_length=1, max_length=users.NAME_CHARACTERS_MAX, examples=["anna"])]


class Grants(Body):
    role: RoleId | None = Field(default=None, description="In the whole project; null: in no more than the systems.")
    systems: dict[Annotated[str, Field(pattern=ID_PATTERN)], RoleId] = Field(
        default_factory=dict,
        max_length=SYSTEMS_MAX,
        description="System to role, beside that.",
        examples=[{"harbour": "operator"}],
    )


class NewUser(Grants):
    name: UserName = Field(examples=["anna"])


class User(BaseModel):
    name: str = Field(examples=["anna"])
    role: str | None = Field(description="In the whole project.", examples=["viewer"])
    systems: dict[str, str] = Field(examples=[{"harbour": "operator"}])


class CreatedUser(User):
    password: str | None = Field(
        description="Shown this once, to be changed by POST /api/v1/session/password.",
        examples=["gull-harbour-otter-lagoon-41"],
    )


@router.get("", openapi_extra=needs("administer"))
async def list_users(tenant: InProject, context: Context, limit: Limit = 100, cursor: Cursor = None) -> Page[User]:
    """Who has access to the project, by name. (Administrators have, and are not listed.)"""
    async with context.database.connection() as conn:
        rows = await grants.page(conn, tenant.project_id, after=decode_cursor(cursor, str), limit=limit + 1)
    return make_page(rows, limit, lambda row: row.name, _shown)


@router.post("", status_code=201, openapi_extra=needs("administer", secret=True))
async def create_user(body: NewUser, tenant: InProject, context: Context) -> CreatedUser:
    """With a password that is shown once. Somebody who has a user already, in another project, is given access by
    PUT /api/v1/users/{name}."""
    member = _member(body.name, body)

    async def create(conn: Connection) -> str:
        await audit.act_as(conn, tenant.principal.actor)
        password = await users.create(conn, body.name)
        await _put(conn, tenant, member)
        return password

    try:
        password = await context.database.run(create)
    except TakenError as error:
        raise TakenError("name", f"user {body.name}") from error
    return CreatedUser(name=member.name, role=member.role, systems=member.systems, password=password)


@router.get("/{name}", openapi_extra=needs("administer"))
async def get_user(name: UserPath, tenant: InProject, context: Context) -> User:
    """What a user may do in the project."""
    async with context.database.connection() as conn:
        return _shown(await grants.get(conn, tenant.project_id, name))


@router.put("/{name}", openapi_extra=needs("administer"))
async def put_user(name: UserPath, body: Grants, tenant: InProject, context: Context) -> User:
    """Gives an existing user this access to the project, in place of what they had in it."""
    member = _member(name, body)

    async def put(conn: Connection) -> None:
        await audit.act_as(conn, tenant.principal.actor)
        await _put(conn, tenant, member)

    await context.database.run(put)
    return _shown(member)


@router.delete("/{name}", status_code=204, openapi_extra=needs("administer"))
async def delete_user(name: UserPath, tenant: InProject, context: Context) -> None:
    """They see the project no more; their user stays."""

    async def delete(conn: Connection) -> None:
        await audit.act_as(conn, tenant.principal.actor)
        await grants.delete(conn, tenant.project_id, name)

    await context.database.run(delete)


async def _put(conn: Connection, tenant: Tenant, member: Member) -> None:
    if not tenant.access.covers(await grants.access_of(conn, tenant.project_id, member)):
        raise forbidden("nobody may give more than they have")
    await grants.put(conn, tenant.project_id, member)


def _member(name: str, body: Grants) -> Member:
    if body.role is None and not body.systems:
        raise invalid("role", "is missing", remedy="give a role in the project, or in some of its systems")
    return Member(name, body.role, body.systems)


def _shown(row: Member) -> User:
    return User(name=row.name, role=row.role, systems=row.systems)
