"""The usual request of HTTP ingest (`POST /api/v1/messages`, no parameter but the project), without what FastAPI does
for each: matching it against every route of the API, and finding its parameters. That is two thirds of what a small
request costs. All others, and what is said of both in OpenAPI, are those of routes.py."""

from __future__ import annotations

import re
from typing import Final

from starlette.requests import Request
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from cloud.api.tenancy import ID_PATTERN
from cloud.ingest import routes

PATH: Final = f"{routes.PREFIX}/messages"
_QUERY: Final = re.compile(f"(?:project_id=({ID_PATTERN.removeprefix('^').removesuffix('$')}))?")
_BEARER: Final = "bearer "


class UsualRequest(BaseRoute):
    """Stands before the API's routes, inside of its middleware."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] == "http" and scope["path"] == PATH and scope["method"] == "POST":
            asked = _QUERY.fullmatch(scope["query_string"].decode("latin-1"))
            if asked is not None:
                return Match.FULL, {"path_params": {"project_id": asked[1]}}
        return Match.NONE, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        response = await routes.take_messages(
            request, request.app.state.ingest, _token(request), scope["path_params"]["project_id"]
        )
        await response(scope, receive, send)


def _token(request: Request) -> str | None:
    """As fastapi's HTTPBearer finds it."""
    said = request.headers.get("authorization", "")
    return said[len(_BEARER) :].strip() or None if said[: len(_BEARER)].lower() == _BEARER else None
