"""Whose rows: the project of a request, and what the caller may do in it, checked once for all resources. A project
that the caller does not see is 404."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final, TypeVar

import msgspec
from fastapi import Depends, Header, Path, Query, Request, Response

from cloud.api.auth import Principal
from cloud.api.context import ApiContext, Context
from cloud.api.problems import Problem, invalid
from cloud.api.routing import route_of
from cloud.db import devices, idempotency, tenancy
from cloud.db.database import Connection, Connections
from cloud.db.tenancy import Principal as PrincipalRow
from cloud.model.access import Access, Permission
from sync.registry import Alias

T = TypeVar("T")

ID_PATTERN: Final = "^[a-z0-9][a-z0-9_-]{0,62}$"
"""What people may call projects, systems, networks, blueprints and gateways: it stands in paths and topics."""
PROJECTS_NAMED_MAX: Final = 10
"""Projects that an ambiguous request is told of."""
KEY_CHARACTERS_MAX: Final = 128
IDEMPOTENCY_KEY: Final = "idempotency-key"
"""The header, as OpenAPI describes it."""
KEPT_BYTES_MAX: Final = 256 * 1024
"""Of an answer that is kept for a request that comes twice; larger ones are not."""

ProjectParameter = Annotated[
    str | None,
    Query(
        alias="project_id",
        pattern=ID_PATTERN,
        description="The project. May be left out by a caller who sees only one.",
        examples=["demo"],
    ),
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=KEY_CHARACTERS_MAX,
        description="Chosen by you for one request: sent again under the same key within a day, it is done once, and "
        "answered as before.",
    ),
]


class Tenant(Connections):
    """A project as a caller may use it: its database, which has no other project's rows, and their permissions."""

    def __init__(self, project_id: str, principal: PrincipalRow, access: Access, database: Connections) -> None:
        self.project_id = project_id
        self.principal = principal
        self.access = access
        self.once: Once | None = None
        self._database = database

    def connection(self) -> contextlib.AbstractAsyncContextManager[Connection]:
        return self._database.connection()

    async def run(self, work: Callable[[Connection], Awaitable[T]], **options: Any) -> T:
        """As Connections.run; under an Idempotency-Key, the first one of a request is done once."""
        once, self.once = self.once, None
        if once is None:
            return await super().run(work, **options)
        return await super().run(lambda conn: once.work(conn, work), **options)

    def need(self, permission: Permission, system_id: str | None = None) -> None:
        """Raises a problem. `system_id` None: in the project as a whole."""
        if not self.access.may(permission, system_id):
            where = f"project {self.project_id}" if system_id is None else f"system {system_id}"
            raise forbidden(f"{self.principal.name} has no permission {permission!r} in {where}")

    def systems(self, permission: Permission) -> list[str] | None:
        """Those in which the caller has it; None: all."""
        return self.access.systems(permission)


class Once:
    """A request that may come twice, and is done once."""

    def __init__(self, tenant: Tenant, key: str, request_sha256: str) -> None:
        self._tenant = tenant
        self._place = (tenant.project_id, tenant.principal.actor, key)
        self._request_sha256 = request_sha256
        self._done = False

    async def look(self) -> Response | None:
        """What was answered before. Raises a problem."""
        async with self._tenant.connection() as conn:
            found = await idempotency.find(conn, *self._place)
        if found is None:
            return None
        if found.request_sha256 != self._request_sha256:
            raise Problem(
                422, "key-reused", "Key used already", "another request was done under this key",
                field="Idempotency-Key", remedy="choose another key",
            )  # fmt: skip
        if found.status is None or found.body is None:
            raise Problem(
                409, "done-already", "Done already", "this request was done before; its answer is not kept",
                field="Idempotency-Key", remedy="look at what there is now; to do it once more, choose another key",
            )  # fmt: skip
        headers = msgspec.json.decode(found.headers or "{}", type=dict[str, str])
        return Response(found.body, found.status, {**headers, "Idempotency-Replayed": "true"})

    async def work(self, conn: Connection, work: Callable[[Connection], Awaitable[T]]) -> T:
        if not await idempotency.claim(conn, *self._place, self._request_sha256):
            raise Problem(
                409, "in-progress", "In progress", "the same request was being done meanwhile",
                field="Idempotency-Key", remedy="send it again", headers={"Retry-After": "1"},
            )  # fmt: skip
        result = await work(conn)
        self._done = True
        return result

    async def keep(self, response: Response) -> None:
        body = getattr(response, "body", None)
        if not self._done or body is None or len(body) > KEPT_BYTES_MAX:
            return
        headers = {name: value for name, value in response.headers.items() if name in ("content-type", "etag")}
        held = msgspec.json.encode(headers).decode()
        async with self._tenant.transaction() as conn:
            await idempotency.keep(conn, *self._place, response.status_code, held, bytes(body))


class AnsweredBefore(Exception):  # noqa: N818  # no error: the answer is there
    """Close: the request was done before under its key; `response` is what was answered."""

    def __init__(self, response: Response) -> None:
        self.response = response


async def tenant_of(
    request: Request, context: ApiContext, principal: PrincipalRow, wanted: str | None, key: str | None = None
) -> Tenant:
    """The project that a request names as `wanted`, or the only one that the caller sees, if the route's permission is
    given there. Raises NotFoundError; a problem: ambiguous, forbidden."""
    tenant = await tenant_seen(context, principal, wanted)
    route = route_of(request)
    if not (route.anywhere and tenant.systems(route.permission)):
        tenant.need(route.permission)
    await _once(request, tenant, key)
    return tenant


async def _once(request: Request, tenant: Tenant, key: str | None) -> None:
    if key is None or request.method != "POST":
        return
    body = await request.body()
    asked = hashlib.sha256(f"{request.method} {request.url.path}?{request.url.query}\n".encode() + body).hexdigest()
    once = Once(tenant, key, asked)
    answered = await once.look()
    if answered is not None:
        raise AnsweredBefore(answered)
    tenant.once = once
    if not route_of(request).secret:
        request.state.keep_answer = once.keep


async def tenant_seen(context: ApiContext, principal: PrincipalRow, wanted: str | None) -> Tenant:
    """As `tenant_of`, before it is known what the caller may do there. Raises NotFoundError; a problem: ambiguous."""
    async with context.database.connection() as conn:
        if wanted is None:
            seen = await tenancy.visible(conn, principal, PROJECTS_NAMED_MAX + 1)
            if len(seen) != 1:
                raise _ambiguous(seen)
            wanted = seen[0]
        access = await tenancy.access(conn, principal, wanted)
    return Tenant(wanted, principal, access, context.tenants.of(wanted, principal.actor))


def forbidden(detail: str) -> Problem:
    return Problem(403, "forbidden", "Not allowed", detail, remedy="ask somebody with permission 'administer' for it")


def _ambiguous(seen: list[str]) -> Problem:
    if not seen:
        detail, remedy = "you see no project", "ask an administrator for access, or create a project"
    else:
        names = ", ".join(seen[:PROJECTS_NAMED_MAX]) + (" and more" if len(seen) > PROJECTS_NAMED_MAX else "")
        detail, remedy = f"you see several projects: {names}", "name one as project_id"
    return Problem(409, "ambiguous-project", "Which project?", detail, field="project_id", remedy=remedy)


async def _tenant(
    request: Request,
    context: Context,
    principal: Principal,
    project_id: ProjectParameter = None,
    idempotency_key: IdempotencyKey = None,
) -> Tenant:
    return await tenant_of(request, context, principal, project_id, idempotency_key)


InProject = Annotated[Tenant, Depends(_tenant)]
"""The project of a request, in which the caller has the route's permission."""

SystemPath = Annotated[str, Path(pattern=ID_PATTERN, examples=["harbour"])]


async def _in_system(
    request: Request,
    context: Context,
    principal: Principal,
    system_id: SystemPath,
    project_id: ProjectParameter = None,
    idempotency_key: IdempotencyKey = None,
) -> Tenant:
    tenant = await tenant_seen(context, principal, project_id)
    if not tenant.access.may("read", system_id):
        raise Problem(404, "not-found", "Not found", f"there is no system {system_id}")
    tenant.need(route_of(request).permission, system_id)
    await _once(request, tenant, idempotency_key)
    return tenant


InSystem = Annotated[Tenant, Depends(_in_system)]
"""The project of a request whose path names a system, in which the caller has the route's permission."""

DeviceParameter = Annotated[
    str,
    Path(
        description="A device: its id, or `network:key:alias`.",
        max_length=400,
        openapi_examples={"alias": {"value": "demo:serial:bench-01"}, "id": {"value": "17"}},
    ),
]


class DeviceAt(msgspec.Struct, frozen=True):
    tenant: Tenant
    id: int

    @property
    def place(self) -> tuple[str, int]:
        """Project id and device id."""
        return self.tenant.project_id, self.id


async def device_at(
    request: Request, context: ApiContext, principal: PrincipalRow, ref: str, project_id: str | None
) -> DeviceAt:
    """Finds what a path calls a device, if the caller has the route's permission for it. Raises NotFoundError, or a
    problem."""
    tenant, device_id, system_id = await _found(context, principal, ref, project_id)
    if not tenant.access.may("read", system_id):
        raise Problem(404, "not-found", "Not found", f"there is no device {ref}")
    tenant.need(route_of(request).permission, system_id)
    return DeviceAt(tenant, device_id)


async def _found(
    context: ApiContext, principal: PrincipalRow, ref: str, project_id: str | None
) -> tuple[Tenant, int, str]:
    if ref.isascii() and ref.isdigit() and len(ref) <= len(str(2**63 - 1)) - 1:
        async with context.database.connection() as conn:
            found, system_id = await tenancy.place_of_device(conn, principal, int(ref))
        if project_id is not None and project_id != found:
            raise Problem(404, "not-found", "Not found", f"there is no device {ref} in project {project_id}")
        return await tenant_seen(context, principal, found), int(ref), system_id
    parts = ref.split(":", 2)
    if len(parts) != 3 or not all(parts):
        raise invalid("device", f"{ref!r} is no device", remedy="name it by its id or as network:key:alias")
    tenant = await tenant_seen(context, principal, project_id)
    async with tenant.connection() as conn:
        return tenant, *await devices.find(conn, tenant.project_id, Alias(*parts))


async def _device(
    request: Request,
    context: Context,
    principal: Principal,
    device: DeviceParameter,
    project_id: ProjectParameter = None,
    idempotency_key: IdempotencyKey = None,
) -> DeviceAt:
    at = await device_at(request, context, principal, device, project_id)
    await _once(request, at.tenant, idempotency_key)
    return at


AtDevice = Annotated[DeviceAt, Depends(_device)]
"""The device of a request's path, for which the caller has the route's permission."""
