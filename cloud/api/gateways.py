"""Gateways, and how they enrol."""

from __future__ import annotations

import base64
import binascii
import datetime
from typing import Annotated, Final
from urllib.parse import urlsplit

import msgspec
from fastapi import Path, Request
from pydantic import BaseModel, Field

from cloud.api.context import Context
from cloud.api.fields import Body, ChosenId, CreatedAt, Resource, Title
from cloud.api.pages import Cursor, Limit, Page, decode_cursor, make_page
from cloud.api.problems import Problem, invalid
from cloud.api.routing import needs, resource
from cloud.api.tenancy import ID_PATTERN, InProject
from cloud.db import gateways, standings
from cloud.db.database import Connection
from cloud.db.secrets import new_secret, sha256_hex
from cloud.model.standing import GatewayStanding

router = resource("/gateways", "gateways")
enrolment_router = resource("/enrolments", "gateways")
GatewayPath = Annotated[str, Path(pattern=ID_PATTERN, examples=["quay-1"])]

LIFETIME_DEFAULT_S: Final = 24 * 3600
LIFETIME_MAX_S: Final = 30 * 24 * 3600
"""A gateway on its way to a far site; what lies around for longer is found by somebody."""
LINK_PATH: Final = "/link/v1"
_KEY_BYTES: Final = 32

Lifetime = Annotated[
    int, Field(ge=60, le=LIFETIME_MAX_S, description="How long the enrolment token is valid, in seconds.")
]


class NewGateway(Body):
    id: ChosenId = Field(examples=["quay-1"])
    name: Title = Field(examples=["Quay 1, north end"])
    token_lifetime_s: Lifetime = LIFETIME_DEFAULT_S


class GatewayChange(Body):
    name: Title


class NewToken(Body):
    token_lifetime_s: Lifetime = LIFETIME_DEFAULT_S


class Gateway(Resource):
    project_id: str = Field(examples=["demo"])
    id: str = Field(examples=["quay-1"])
    name: str = Field(examples=["Quay 1, north end"])
    public_keys: list[str] = Field(
        description="Ed25519, base64url, the newest first. Empty: it has not enrolled.",
        examples=[["11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"]],
    )
    created_at: CreatedAt
    last_seen_at: datetime.datetime | None = Field(description="When it was connected last; null: never.")


class Backlog(BaseModel):
    """What a gateway has not sent yet, by its own last word."""

    told_at: datetime.datetime = Field(description="When it said so.")
    pending: int = Field(description="Records that wait in its log, at least.", examples=[0])
    in_flight: int = Field(description="Of these, sent and without an answer.", examples=[0])
    age_s: float = Field(description="Of the oldest of them, by the gateway's clock.", examples=[0.0])
    refused: dict[str, int] = Field(description="Records refused before its log since its start, by reason.")


class GatewayInFull(Gateway):
    complete_until: int | None = Field(
        description="All that it received before is in the databases, or listed under /gaps. Unix milliseconds; null: "
        "not known.",
        examples=[1772353860012],
    )
    backlog: Backlog | None = Field(description="null: it has told nothing yet.")


class EnrolmentToken(BaseModel):
    token: str = Field(description="Shown this once: tidegate-edge enroll URL --token TOKEN")
    expires_at: datetime.datetime


class CreatedGateway(Gateway):
    enrolment: EnrolmentToken


class Enrolment(Body):
    token: Annotated[str, Field(max_length=200)]
    public_key: str = Field(
        max_length=64,
        description="Ed25519, 32 bytes as base64 or base64url.",
        examples=["11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"],
    )


class Enrolled(BaseModel):
    gateway_id: str = Field(examples=["quay-1"])
    project_id: str = Field(examples=["demo"])
    link_url: str = Field(description="Where the gateway's link goes.", examples=["wss://cloud.example/link/v1"])


@router.get("")
async def list_gateways(
    context: Context, tenant: InProject, limit: Limit = 100, cursor: Cursor = None
) -> Page[Gateway]:
    """By id."""
    async with tenant.connection() as conn:
        rows = await gateways.page(conn, tenant.project_id, after=decode_cursor(cursor, str), limit=limit + 1)
    return make_page(rows, limit, lambda row: row.id, Gateway.model_validate)


@router.post("", status_code=201, openapi_extra=needs("create", secret=True))
async def create_gateway(body: NewGateway, context: Context, tenant: InProject) -> CreatedGateway:
    """With a token by which the gateway enrols, once."""
    token = new_secret()

    async def create(conn: Connection) -> tuple[gateways.Gateway, datetime.datetime]:
        row = await gateways.create(conn, tenant.project_id, body.id, body.name)
        lifetime = datetime.timedelta(seconds=body.token_lifetime_s)
        return row, await gateways.add_token(conn, tenant.project_id, body.id, sha256_hex(token), lifetime)

    row, expires_at = await tenant.run(create)
    enrolment = EnrolmentToken(token=token, expires_at=expires_at)
    return CreatedGateway(**msgspec.structs.asdict(row), enrolment=enrolment)


@router.get("/{gateway_id}")
async def get_gateway(gateway_id: GatewayPath, context: Context, tenant: InProject) -> GatewayInFull:
    """A gateway, its keys, and what it has not sent yet."""
    async with tenant.connection() as conn:
        row = await gateways.get(conn, tenant.project_id, gateway_id)
        stands = await standings.of_gateway(conn, tenant.project_id, gateway_id)
    return GatewayInFull(
        **Gateway.model_validate(row).model_dump(),
        complete_until=stands.complete_until if stands else None,
        backlog=_backlog(stands),
    )


@router.patch("/{gateway_id}")
async def change_gateway(gateway_id: GatewayPath, body: GatewayChange, context: Context, tenant: InProject) -> Gateway:
    """Renames it."""
    row = await tenant.run(lambda conn: gateways.rename(conn, tenant.project_id, gateway_id, body.name))
    return Gateway.model_validate(row)


@router.post("/{gateway_id}/enrolment-tokens", status_code=201, openapi_extra=needs("update", secret=True))
async def create_enrolment_token(
    gateway_id: GatewayPath, context: Context, tenant: InProject, body: NewToken | None = None
) -> EnrolmentToken:
    """For a gateway that enrols for the first time, or again: its newest two keys are valid side by side."""
    token = new_secret()
    lifetime = datetime.timedelta(seconds=(body or NewToken()).token_lifetime_s)
    expires_at = await tenant.run(
        lambda conn: gateways.add_token(conn, tenant.project_id, gateway_id, sha256_hex(token), lifetime)
    )
    return EnrolmentToken(token=token, expires_at=expires_at)


@router.delete("/{gateway_id}/keys/{public_key}", openapi_extra=needs("update"))
async def revoke_gateway_key(
    gateway_id: GatewayPath,
    public_key: Annotated[str, Path(max_length=64)],
    context: Context,
    tenant: InProject,
) -> Gateway:
    """The gateway can no longer connect by that key; what it records stays on its disk until it enrols again."""
    row = await tenant.run(lambda conn: gateways.revoke_key(conn, tenant.project_id, gateway_id, public_key))
    return Gateway.model_validate(row)


@enrolment_router.post("", status_code=201, openapi_extra=needs("anybody"))
async def enrol(body: Enrolment, request: Request, context: Context) -> Enrolled:
    """What `tidegate-edge enroll` asks: binds the gateway's public key to the gateway that the token is for. Needs no
    session. The same token with the same key gives the same answer again."""
    key = _public_key(body.public_key)
    try:
        row = await context.database.run(lambda conn: gateways.enrol(conn, sha256_hex(body.token), key))
    except gateways.EnrolmentRefusedError as error:
        remedy = "make a new token: POST /api/v1/gateways/{id}/enrolment-tokens"
        raise Problem(
            403, f"enrolment-{error.code}", "Enrolment refused", str(error), field="token", remedy=remedy
        ) from None
    link_url = _link_url(context.settings.public_url or str(request.base_url))
    return Enrolled(gateway_id=row.id, project_id=row.project_id, link_url=link_url)


def _backlog(stands: GatewayStanding | None) -> Backlog | None:
    if stands is None or stands.standing is None or stands.standing_at is None:
        return None
    return Backlog(
        told_at=stands.standing_at,
        pending=stands.pending,
        in_flight=stands.in_flight,
        age_s=stands.backlog_age_ms / 1000,
        refused=dict(stands.standing.refused),
    )


def _public_key(text: str) -> str:
    """In the one form that is kept, from either alphabet of base 64. Raises a problem."""
    digits = text.rstrip("=").replace("+", "-").replace("/", "_")
    try:
        raw = base64.b64decode(digits + "=" * (-len(digits) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != _KEY_BYTES:
        raise invalid("public_key", "not an Ed25519 public key", remedy="send its 32 bytes as base64url")
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _link_url(base: str) -> str:
    """The WebSocket beside an http(s) address."""
    parts = urlsplit(base)
    return f"{'wss' if parts.scheme == 'https' else 'ws'}://{parts.netloc}{parts.path.rstrip('/')}{LINK_PATH}"
