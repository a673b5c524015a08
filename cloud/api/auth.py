"""Who asks: a user by a session token (JWT, HS256), or a program by an API key; either as bearer."""

from __future__ import annotations

import datetime
import re
import uuid
from typing import Annotated, Any, Final

import jwt
import msgspec
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from cloud.api.context import ApiContext, Context
from cloud.api.problems import Problem
from cloud.db import api_keys, users
from cloud.db.secrets import sha256_hex
from cloud.db.tenancy import Principal as PrincipalRow

TOKEN_S: Final = 3600
"""Then the client asks for the next one by its refresh token."""
SESSION_S: Final = 30 * 86_400
"""Since the last refresh."""
KEY_PREFIX: Final = "tg_"
_ALGORITHM: Final = "HS256"
_AUDIENCE: Final = "tidegate-api"
_KEY: Final = re.compile(r"tg_([0-9a-f]{32})_([0-9a-z]{1,64})")

bearer = HTTPBearer(
    auto_error=False, description="The token that POST /api/v1/session gives, or an API key (POST /api/v1/api-keys)."
)


class _Claims(msgspec.Struct, frozen=True):
    sub: str
    sid: str
    ver: int
    exp: int


def make_token(key: bytes, user_id: int, session_id: uuid.UUID, version: int, expires_s: int) -> str:
    """`expires_s`: Unix seconds."""
    claims = {"sub": str(user_id), "sid": session_id.hex, "ver": version, "exp": expires_s, "aud": _AUDIENCE}
    return jwt.encode(claims, key, algorithm=_ALGORITHM)


def key_text(key_id: uuid.UUID, secret: str) -> str:
    """An API key as programs send it."""
    return f"{KEY_PREFIX}{key_id.hex}_{secret}"


def unauthorized(detail: str, remedy: str = "sign in with POST /api/v1/session") -> Problem:
    return Problem(
        401,
        "unauthorized",
        "Not signed in",
        detail,
        remedy=remedy,
        headers={"WWW-Authenticate": 'Bearer realm="tidegate"'},
    )


def session_of(context: ApiContext, token: str) -> tuple[uuid.UUID, int, int]:
    """(session, user, version of the user's sessions) that a token of ours names. Raises a problem."""
    try:
        held: dict[str, Any] = jwt.decode(
            token,
            context.session_key,
            algorithms=[_ALGORITHM],
            audience=_AUDIENCE,
            options={"verify_exp": False},  # the clock is ours
        )
        claims = msgspec.convert(held, _Claims)
        named = uuid.UUID(claims.sid), int(claims.sub), claims.ver
    except (jwt.InvalidTokenError, msgspec.ValidationError, ValueError):
        raise unauthorized("the session token is not one of this server") from None
    if claims.exp * 1000 <= context.wall_ms():
        raise unauthorized("the session token has expired", "POST /api/v1/session/refresh gives the next one")
    return named


async def _principal(
    request: Request, context: Context, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
) -> PrincipalRow:
    found = await principal_of(context, credentials.credentials if credentials else None)
    request.state.rate_headers = context.rates.headers(context.rates.take(found.actor + (found.project_id or "")))
    return found


async def principal_of(context: ApiContext, token: str | None) -> PrincipalRow:
    """Whose session token or API key it is. Raises a problem."""
    if token is None:
        raise unauthorized("this needs a session token or an API key: Authorization: Bearer …")
    if token.startswith(KEY_PREFIX):
        return await _of_key(context, token)
    named = session_of(context, token)
    async with context.database.connection() as conn:
        user = await users.of_session(conn, *named)
    if user is None:
        raise unauthorized("the session has ended: by signing out, a new password, or as the user is gone")
    return user


async def _of_key(context: ApiContext, token: str) -> PrincipalRow:
    match = _KEY.fullmatch(token)
    found = None
    if match is not None:
        now = datetime.datetime.fromtimestamp(context.wall_ms() / 1000, datetime.UTC)
        async with context.database.connection() as conn:
            found = await api_keys.principal(conn, uuid.UUID(match[1]), sha256_hex(match[2]), now)
    if found is None:
        raise unauthorized("there is no such API key", "make one with POST /api/v1/api-keys")
    principal, expired = found
    if expired:
        raise unauthorized(f"the API key {principal.name} has expired", "make another with POST /api/v1/api-keys")
    return principal


Principal = Annotated[PrincipalRow, Depends(_principal)]
