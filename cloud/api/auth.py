"""Who asks: sign-in by password, then a session token (JWT, HS256) as bearer of every other request."""

from __future__ import annotations

from typing import Annotated, Any, Final

import jwt
import msgspec
from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from cloud.api.context import ApiContext, Context
from cloud.api.problems import Problem
from cloud.db import users
from cloud.db.tenancy import Viewer as ViewerRow

SESSION_S: Final = 12 * 3600
"""A working day with its overtime."""
_ALGORITHM: Final = "HS256"
_AUDIENCE: Final = "tidegate-api"

_bearer = HTTPBearer(auto_error=False, description="The token that POST /api/v1/session gives.")


class _Claims(msgspec.Struct, frozen=True):
    sub: str
    ver: int
    exp: int


def make_token(key: bytes, user_id: int, version: int, expires_s: int) -> str:
    """`expires_s`: Unix seconds."""
    claims = {"sub": str(user_id), "ver": version, "exp": expires_s, "aud": _AUDIENCE}
    return jwt.encode(claims, key, algorithm=_ALGORITHM)


def unauthorized(detail: str, remedy: str = "sign in with POST /api/v1/session") -> Problem:
    return Problem(
        401,
        "unauthorized",
        "Not signed in",
        detail,
        remedy=remedy,
        headers={"WWW-Authenticate": 'Bearer realm="tidegate"'},
    )


async def viewer_of(context: ApiContext, token: str | None) -> ViewerRow:
    """Whose session token it is. Raises a problem."""
    if token is None:
        raise unauthorized("this needs a session token: Authorization: Bearer …")
    try:
        held: dict[str, Any] = jwt.decode(
            token,
            context.session_key,
            algorithms=[_ALGORITHM],
            audience=_AUDIENCE,
            options={"verify_exp": False},  # the clock is ours
        )
        claims = msgspec.convert(held, _Claims)
        user_id = int(claims.sub)
    except (jwt.InvalidTokenError, msgspec.ValidationError, ValueError):
        raise unauthorized("the session token is not one of this server") from None
    if claims.exp * 1000 <= context.wall_ms():
        raise unauthorized("the session has expired")
    async with context.database.connection() as conn:
        viewer = await users.of_session(conn, user_id, claims.ver)
    if viewer is None:
        raise unauthorized("the session has ended: the password was changed, or the user is gone")
    return viewer


async def _viewer(
    context: Context, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> ViewerRow:
    return await viewer_of(context, credentials.credentials if credentials else None)


Viewer = Annotated[ViewerRow, Depends(_viewer)]
