"""The API's application: its routers, its problems, its description."""

from __future__ import annotations

import importlib.metadata
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi

from cloud.api import (
    accounting,
    api_keys,
    audit,
    auto_create,
    blueprint_versions,
    blueprints,
    commands,
    configurations,
    curator,
    current,
    dead_letters,
    devices,
    events,
    gaps,
    gateways,
    history,
    imports,
    inbox,
    jobs,
    misfits,
    networks,
    points,
    problems,
    projects,
    reference,
    reject_replays,
    relations,
    retention,
    roles,
    series,
    sessions,
    stream,
    systems,
    twin,
    unmodelled,
    users,
    where,
)
from cloud.api.bounds import Bounds
from cloud.api.context import ApiContext
from cloud.api.routing import MODELS
from cloud.api.tenancy import IDEMPOTENCY_KEY, AnsweredBefore
from tidegate.console import DISTRIBUTION

PREFIX: Final = "/api/v1"
ROUTERS: Final[tuple[APIRouter, ...]] = (
    sessions.router,
    users.router,
    roles.router,
    api_keys.router,
    audit.router,
    projects.router,
    systems.router,
    networks.router,
    auto_create.router,
    blueprints.router,
    blueprint_versions.router,
    unmodelled.router,
    current.router,
    history.router,
    history.messages_router,
    points.router,
    series.router,
    commands.router,
    twin.router,
    misfits.router,
    relations.router,
    devices.router,
    events.router,
    gateways.router,
    gateways.enrolment_router,
    configurations.router,
    reject_replays.router,
    retention.router,
    curator.router,
    inbox.router,
    dead_letters.router,
    jobs.router,
    imports.router,
    gaps.router,
    accounting.router,
    where.router,
    stream.router,
)
DESCRIPTION: Final = """\
Sign in with `POST /api/v1/session`, and send the token as `Authorization: Bearer …` from then on; it is valid for an
hour, and `POST /api/v1/session/refresh` gives the next one. Programs send an API key in the same place.

A user sees the projects that they were given; what is in others does not exist for them. The query parameter
`project_id` may be left out by who sees only one. Each operation needs the permission that its `x-permission` names;
roles give it in a project, or in some of its systems.

A POST with the header `Idempotency-Key` is done once, however often it is sent within a day. `If-Match` with the ETag
that was read refuses a change of what has changed meanwhile. `RateLimit` says how many requests are left.

Lists are pages `{count, items, next}`: `next` is the `cursor` of the page that follows. A device in a path is its id or
`network:key:alias`. Fields that end in `_time` are Unix milliseconds, those that end in `_at` RFC 3339.

Every error is a problem (RFC 9457) with `type`, `title`, `status`, `detail` and, where known, `field`, `limit` and
`remedy`."""


def create_app(context: ApiContext) -> FastAPI:
    """The application with everything of this package under PREFIX. What else listens on the same port (links, HTTP
    ingest, health) is added to it by the composition root; its errors become problems too."""
    app = FastAPI(
        title="Tidegate",
        version=importlib.metadata.version(DISTRIBUTION),
        description=DESCRIPTION,
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,  # clients that are generated call them so
    )
    app.state.context = context
    for router in ROUTERS:
        app.include_router(router, prefix=PREFIX)
    app.include_router(reference.router)
    problems.install(app)
    app.add_exception_handler(AnsweredBefore, _answered_before)
    app.add_middleware(Bounds)
    app.openapi = lambda: _described(app)  # type: ignore[method-assign]  # fastapi's documented way
    return app


async def _answered_before(_request: Request, error: Exception) -> Response:
    assert isinstance(error, AnsweredBefore)
    return error.response


def _described(app: FastAPI) -> dict[str, Any]:
    """OpenAPI, with problems under their own media type."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            separate_input_output_schemas=False,  # one name for one thing
        )
        for path in schema["paths"].values():
            for method, operation in path.items():
                if method != "post" and "parameters" in operation:  # what is read or replaced may come twice
                    operation["parameters"] = [one for one in operation["parameters"] if one["name"] != IDEMPOTENCY_KEY]
                schema["components"]["schemas"] |= operation.pop(MODELS, {})
                if operation["summary"].istitle():  # made from a function's name
                    operation["summary"] = operation["summary"].capitalize()
                for response in operation.get("responses", {}).values():
                    _as_problem(response)
        app.openapi_schema = schema
    return app.openapi_schema


def _as_problem(response: dict[str, Any]) -> None:
    content = response.get("content", {})
    for media_type, held in list(content.items()):
        if held.get("schema", {}).get("$ref", "").endswith(f"/{problems.ProblemDetails.__name__}"):
            del content[media_type]
            content[problems.MEDIA_TYPE] = held
