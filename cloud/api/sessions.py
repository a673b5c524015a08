"""Signing in, and staying so."""

from __future__ import annotations

import datetime
import math
import uuid
from typing import Annotated, Final

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials
from pydantic import BaseModel, Field

from cloud.api.auth import KEY_PREFIX, SESSION_S, TOKEN_S, Principal, bearer, make_token, session_of, unauthorized
from cloud.api.context import ApiContext, Context
from cloud.api.fields import Body
from cloud.api.problems import Problem, invalid
from cloud.api.routing import needs, resource
from cloud.api.tenancy import forbidden
from cloud.db import audit, users
from cloud.db.database import Connection
from cloud.model.access import PERMISSIONS, Permission

router = resource("/session", "session")

PASSWORD_CHARACTERS_MIN: Final = 12
PASSWORD_CHARACTERS_MAX: Final = 200


class SignIn(Body):
    user: Annotated[str, Field(max_length=users.NAME_CHARACTERS_MAX, examples=["admin"])]
    password: Annotated[str, Field(max_length=PASSWORD_CHARACTERS_MAX, examples=["gull-harbour-41"])]


class Refresh(Body):
    refresh_token: Annotated[str, Field(max_length=200, description="Of the last sign-in or refresh; each holds once.")]


class NewPassword(Body):
    old: Annotated[str, Field(max_length=PASSWORD_CHARACTERS_MAX)]
    new: Annotated[
        str, Field(min_length=PASSWORD_CHARACTERS_MIN, max_length=PASSWORD_CHARACTERS_MAX, description="A few words.")
    ]


class Session(BaseModel):
    token: str = Field(description="For the header `Authorization: Bearer …` of every other request.")
    expires: datetime.datetime = Field(description="The token's.", examples=["2026-03-01T09:30:00Z"])
    refresh_token: str = Field(description="Gives the next token, once: POST /api/v1/session/refresh.")
    refresh_expires: datetime.datetime = Field(examples=["2026-03-31T08:30:00Z"])


class Me(BaseModel):
    user: str = Field(description="Of an API key: its name.", examples=["admin"])
    admin: bool
    is_key: bool = Field(description="An API key, not a person.")
    permissions: list[Permission] = Field(description="Of an administrator or an API key, in its project.")


@router.post("", openapi_extra=needs("anybody"))
async def sign_in(body: SignIn, request: Request, context: Context) -> Session:
    """Gives a token that is valid for an hour, and another by which the next one is had, within 30 days. Wrong
    passwords are rate-limited."""
    await _check_password(context, request, body.user, body.password)
    expires = _in(context, TOKEN_S)
    refresh_expires = _in(context, SESSION_S)

    async def open_session(conn: Connection) -> tuple[int, uuid.UUID, int, str]:
        user_id = await conn.fetchval("SELECT id FROM app_user WHERE name = $1", body.user)
        return user_id, *await users.open_session(conn, user_id, refresh_expires)

    user_id, session_id, version, refresh_token = await context.database.run(open_session)
    token = make_token(context.session_key, user_id, session_id, version, math.floor(expires.timestamp()))
    return Session(token=token, expires=expires, refresh_token=refresh_token, refresh_expires=refresh_expires)


@router.post("/refresh", openapi_extra=needs("anybody"))
async def refresh_session(body: Refresh, context: Context) -> Session:
    """The next token and the next refresh token. A refresh token that was used before ends the session: somebody else
    has it, too."""
    expires, refresh_expires = _in(context, TOKEN_S), _in(context, SESSION_S)
    found = await context.database.run(
        lambda conn: users.refresh(conn, body.refresh_token, _in(context, 0), refresh_expires)
    )
    if found is None:
        raise unauthorized("the refresh token holds no more")
    session_id, user_id, version, following = found
    token = make_token(context.session_key, user_id, session_id, version, math.floor(expires.timestamp()))
    return Session(token=token, expires=expires, refresh_token=following, refresh_expires=refresh_expires)


@router.get("", openapi_extra=needs("user"))
async def who_am_i(principal: Principal) -> Me:
    """Whose session or key this is."""
    held = principal.access.everywhere.union(*principal.access.by_system.values())
    return Me(
        user=principal.name,
        admin=principal.admin,
        is_key=not principal.user_id,
        permissions=[one for one in PERMISSIONS if principal.admin or one in held],
    )


@router.delete("", status_code=204, openapi_extra=needs("user"))
async def sign_out(
    principal: Principal, context: Context, credentials: Annotated[HTTPAuthorizationCredentials, Depends(bearer)]
) -> None:
    """Ends the session: neither of its tokens holds any more."""
    if credentials.credentials.startswith(KEY_PREFIX):
        raise forbidden("an API key has no session; DELETE /api/v1/api-keys/{id} ends it")
    session_id, _, _ = session_of(context, credentials.credentials)
    await context.database.run(lambda conn: users.end_session(conn, session_id))


@router.post("/password", status_code=204, openapi_extra=needs("user"))
async def change_password(body: NewPassword, principal: Principal, request: Request, context: Context) -> None:
    """A new password for yourself. All your sessions end, this one too."""
    if not principal.user_id:
        raise forbidden("an API key has no password")
    if body.new == body.old:
        raise invalid("new", "is the old password", remedy="choose another")
    await _check_password(context, request, principal.name, body.old)

    async def change(conn: Connection) -> None:
        await audit.act_as(conn, principal.actor)
        await users.set_password(conn, principal.name, body.new)

    await context.database.run(change)


async def _check_password(context: ApiContext, request: Request, name: str, password: str) -> None:
    """Raises a problem: wrong, or too many wrong ones."""
    address = request.client.host if request.client else ""
    wait_s = context.attempts.wait_s(address, name)
    if wait_s > 0:
        raise Problem(
            429,
            "too-many-attempts",
            "Too many attempts",
            "too many wrong passwords from here",
            remedy=f"wait {math.ceil(wait_s)} s",
            headers={"Retry-After": str(math.ceil(wait_s))},
        )
    found = None if "\0" in name else await users.verify(context.database, name, password)
    if found is None:
        context.attempts.count_wrong(address, name)
        raise unauthorized("wrong user or password", "set a new password with: tidegate-cloud user reset NAME")


def _in(context: ApiContext, seconds: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(context.wall_ms() // 1000 + seconds, datetime.UTC)
