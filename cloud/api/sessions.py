"""Signing in."""

from __future__ import annotations

import datetime
import math
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from cloud.api.auth import SESSION_S, Viewer, make_token, unauthorized
from cloud.api.context import Context
from cloud.api.fields import Body
from cloud.api.problems import Problem
from cloud.db import users

router = APIRouter(prefix="/session", tags=["session"])


class SignIn(Body):
    user: Annotated[str, Field(max_length=users.NAME_CHARACTERS_MAX, examples=["admin"])]
    password: Annotated[str, Field(max_length=200, examples=["gull-harbour-41"])]


class Session(BaseModel):
    token: str = Field(description="For the header `Authorization: Bearer …` of every other request.")
    expires: datetime.datetime = Field(examples=["2026-03-01T20:30:00Z"])


class Me(BaseModel):
    user: str = Field(examples=["admin"])
    admin: bool


@router.post("")
async def sign_in(body: SignIn, request: Request, context: Context) -> Session:
    """Gives a session token, valid for 12 hours or until the password changes. Wrong passwords are rate-limited."""
    address = request.client.host if request.client else ""
    wait_s = context.attempts.wait_s(address, body.user)
    if wait_s > 0:
        raise Problem(
            429,
            "too-many-attempts",
            "Too many attempts",
            "too many wrong passwords from here",
            remedy=f"wait {math.ceil(wait_s)} s",
            headers={"Retry-After": str(math.ceil(wait_s))},
        )
    found = None if "\0" in body.user else await users.verify(context.database, body.user, body.password)
    if found is None:
        context.attempts.count_wrong(address, body.user)
        raise unauthorized("wrong user or password", "set a new password with: tidegate-cloud user reset NAME")
    viewer, version = found
    expires_s = context.wall_ms() // 1000 + SESSION_S
    token = make_token(context.session_key, viewer.user_id, version, expires_s)
    return Session(token=token, expires=datetime.datetime.fromtimestamp(expires_s, datetime.UTC))


@router.get("")
async def who_am_i(viewer: Viewer) -> Me:
    """Whose session this is."""
    return Me(user=viewer.name, admin=viewer.admin)
