"""Problem details (RFC 9457): the one form of every error, from a wrong path to a database that is down."""

from __future__ import annotations

import http
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from cloud.db.database import STATEMENT_TIMEOUT_S, DatabaseError, DatabaseSlowError
from cloud.db.errors import ChangedError, DanglingError, InUseError, NotFoundError, TakenError
from tidegate.logs import get_logger

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_S: Final = 2
"""What a client is told to wait when the database is down: longer than a restart of a service takes."""
FIELDS_NAMED_MAX: Final = 20
"""Wrong fields that one answer names."""

log = get_logger("cloud.api")


class Problem(HTTPException):
    """An answer that is an error. `code` is stable and machine-readable; it ends the problem's `type`."""

    def __init__(
        self,
        status: int,
        code: str,
        title: str,
        detail: str,
        *,
        field: str | None = None,
        limit: int | None = None,
        remedy: str | None = None,
        headers: Mapping[str, str] | None = None,
        errors: Sequence[Mapping[str, str]] | None = None,
    ) -> None:
        super().__init__(status, detail, headers)
        body = {
            "type": f"urn:tidegate:problem:{code}",
            "title": title,
            "status": status,
            "detail": detail,
            "field": field,
            "limit": limit,
            "remedy": remedy,
            "errors": errors,
        }
        self.body = {name: value for name, value in body.items() if value is not None}

    def response(self) -> Response:
        return Response(msgspec.json.encode(self.body), self.status_code, self.headers, media_type=MEDIA_TYPE)


class FieldError(BaseModel):
    field: str
    detail: str


class ProblemDetails(BaseModel):
    """What every error looks like (RFC 9457, application/problem+json)."""

    type: str = Field(description="Stable name of the kind of problem.", examples=["urn:tidegate:problem:not-found"])
    title: str = Field(examples=["Not found"])
    status: int = Field(examples=[404])
    detail: str = Field(description="What is wrong here, for people.", examples=["there is no device 4711"])
    field: str | None = Field(default=None, description="The field or parameter that it is about.")
    limit: int | None = Field(default=None, description="The limit that was exceeded.")
    remedy: str | None = Field(default=None, description="What to do about it.")
    errors: list[FieldError] | None = Field(default=None, description="All wrong fields, where there are several.")


def install(app: FastAPI) -> None:
    """Makes every error of the app a problem."""
    app.add_exception_handler(Problem, _of_problem)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(Exception, _of_defect)
    for kind in (NotFoundError, TakenError, DanglingError, InUseError, ChangedError):
        app.add_exception_handler(kind, _of_row)
    app.add_exception_handler(DatabaseError, _of_database)


def invalid(field: str, detail: str, *, limit: int | None = None, remedy: str | None = None) -> Problem:
    return Problem(422, "invalid", "Invalid request", f"{field}: {detail}", field=field, limit=limit, remedy=remedy)


async def _of_problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.response()


async def _of_row(_request: Request, error: Exception) -> Response:
    detail = str(error)
    match error:
        case NotFoundError():
            return Problem(404, "not-found", "Not found", detail).response()
        case TakenError():
            return Problem(409, "exists", "Exists already", detail, field=error.field).response()
        case DanglingError():
            remedy = f"GET /api/v1/{error.kind}s lists what there is"
            return Problem(422, "invalid", "Invalid request", detail, field=error.field, remedy=remedy).response()
        case InUseError():
            remedy = f"remove the {error.by} first"
            return Problem(409, "in-use", "In use", detail, remedy=remedy).response()
        case _:
            remedy = "read it again and repeat the change on what you find"
            return Problem(412, "changed", "Changed meanwhile", detail, field="If-Match", remedy=remedy).response()


async def _of_validation(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = [_field_error(one) for one in error.errors()[:FIELDS_NAMED_MAX]]
    field, detail = found[0]
    errors = [{"field": name, "detail": what} for name, what in found] if len(found) > 1 else None
    limit = _limit(error.errors()[0])
    text = f"{field}: {detail}"
    return Problem(422, "invalid", "Invalid request", text, field=field, limit=limit, errors=errors).response()


def _field_error(error: Mapping[str, Any]) -> tuple[str, str]:
    """Pydantic's place is ("body" or "query", name, index, …), or a byte's position in broken JSON."""
    if error["type"] == "json_invalid":
        return "body", f"not JSON: {error.get('ctx', {}).get('error', error['msg'])}"
    place = [str(part) for part in error["loc"]]
    name = ".".join(place[1:]) or place[0]
    return name, str(error["msg"]).removeprefix("Value error, ")


def _limit(error: Mapping[str, Any]) -> int | None:
    context = error.get("ctx", {})
    for name in ("max_length", "min_length", "le", "ge", "lt", "gt"):
        if isinstance(context.get(name), int):
            return int(context[name])
    return None


async def _of_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    title = http.HTTPStatus(error.status_code).phrase
    code = title.lower().replace(" ", "-")
    detail = str(error.detail)
    remedy = None
    if error.status_code == http.HTTPStatus.NOT_FOUND:
        detail, remedy = f"there is nothing at {request.url.path}", "the paths are listed at /docs"
    elif error.status_code == http.HTTPStatus.METHOD_NOT_ALLOWED:
        detail = f"{request.method} is not possible at {request.url.path}"
        remedy = "the methods of each path are listed at /docs"
    return Problem(error.status_code, code, title, detail, remedy=remedy, headers=error.headers).response()


async def _of_database(request: Request, error: Exception) -> Response:
    log.warning("request failed", path=request.url.path, reason=str(error))
    if isinstance(error, DatabaseSlowError):
        return Problem(
            503,
            "too-slow",
            "Took too long",
            f"the database ended this after {STATEMENT_TIMEOUT_S:.0f} seconds",
            remedy="ask for less, such as a shorter range or fewer devices; else try again when there is less to do",
            headers={"Retry-After": str(RETRY_AFTER_S)},
        ).response()
    return Problem(
        503,
        "unavailable",
        "Unavailable",
        "the database cannot be used at the moment; what this request asked for may or may not have been done",
        remedy="try again",
        headers={"Retry-After": str(RETRY_AFTER_S)},
    ).response()


async def _of_defect(_request: Request, _error: Exception) -> Response:
    """The server logs the traceback; the client is told nothing of it."""
    detail = "a defect of the server; its log has the details"
    return Problem(500, "internal", "Internal error", detail).response()
