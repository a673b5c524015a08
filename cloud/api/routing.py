"""What every operation has: the permission that it needs, the rate headers of its answers, and doing a POST once."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final, Literal, cast, get_origin

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.routing import APIRoute

from cloud.api import problems
from cloud.api.pages import Page
from cloud.model.access import Permission

_PROBLEM: Final[dict[str, Any]] = {"model": problems.ProblemDetails}
_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    401: {**_PROBLEM, "description": "Not signed in."},
    422: {**_PROBLEM, "description": "A field or parameter is wrong."},
    "default": {**_PROBLEM, "description": "Any other problem."},
}

Needed = Permission | Literal["anybody", "user"]
"""anybody: no session. user: any that is signed in, whatever the project."""
PERMISSION: Final = "x-permission"
ANYWHERE: Final = "x-anywhere"
SECRET: Final = "x-secret"
MODELS: Final = "x-models"
"""In `openapi_extra`: schemas by name, of a body that FastAPI does not read."""
_BY_METHOD: Final[dict[str, Needed]] = {
    "GET": "read",
    "POST": "create",
    "PUT": "update",
    "PATCH": "update",
    "DELETE": "delete",
}


def needs(permission: Needed, *, anywhere: bool = False, secret: bool = False) -> dict[str, Any]:
    """For `openapi_extra`. Without it an operation needs what its method says; a list needs `list`.

    `anywhere`: having it in one system is enough to ask; the operation itself looks at which systems. `secret`: the
    answer holds one, and is not kept."""
    return {PERMISSION: permission, ANYWHERE: anywhere, SECRET: secret}


class ApiRoute(APIRoute):
    """An operation. What it needs stands in its OpenAPI description, too."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        model = options.get("response_model")
        (method,) = options.get("methods") or {"GET"}
        is_list = _is_page(model) or _is_page((options.get("responses") or {}).get(200, {}).get("model"))
        default = needs("list" if method == "GET" and is_list else _BY_METHOD[method])
        options["openapi_extra"] = default | (options.get("openapi_extra") or {})
        super().__init__(path, endpoint, **options)

    @property
    def needed(self) -> Needed:
        return cast(Needed, (self.openapi_extra or {})[PERMISSION])

    @property
    def permission(self) -> Permission:
        """Of an operation in a project: the others ask for none."""
        needed = self.needed
        assert needed != "anybody" and needed != "user", f"{self.path} is of no project"  # noqa: PT018
        return needed

    @property
    def anywhere(self) -> bool:
        return bool((self.openapi_extra or {})[ANYWHERE])

    @property
    def secret(self) -> bool:
        return bool((self.openapi_extra or {})[SECRET])

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                response = await handle(request)
            except HTTPException as error:
                error.headers = {**_extra_headers(request), **(error.headers or {})}
                raise
            response.headers.update(_extra_headers(request))
            keep = getattr(request.state, "keep_answer", None)
            if keep is not None:
                await keep(response)
            return response

        return answered


def resource(prefix: str, tag: str) -> APIRouter:
    """The router of a resource's file."""
    return APIRouter(prefix=prefix, tags=[tag], responses=_RESPONSES, route_class=ApiRoute)


def route_of(request: Request) -> ApiRoute:
    return cast(ApiRoute, request.scope["route"])


def _is_page(model: Any) -> bool:
    metadata = getattr(model, "__pydantic_generic_metadata__", None)
    return (metadata or {}).get("origin") is Page or get_origin(model) is Page


def _extra_headers(request: Request) -> dict[str, str]:
    return getattr(request.state, "rate_headers", {})
