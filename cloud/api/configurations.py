"""Gateways' listeners, set from here."""

from __future__ import annotations

import datetime
from typing import Final, Literal

from fastapi import Response
from pydantic import BaseModel, Field

from cloud.api.context import Context
from cloud.api.etag import ExpectedRevision, set_etag
from cloud.api.fields import Body
from cloud.api.gateways import GatewayPath
from cloud.api.problems import invalid
from cloud.api.routing import needs, resource
from cloud.api.tenancy import InProject
from cloud.db import configurations
from cloud.db.configurations import Configuration as Row
from cloud.model.configuration import NotPushableError, check
from sync.configuration import TOML_BYTES_MAX
from tidegate.config import ConfigError

router = resource("/gateways/{gateway_id}/configuration", "gateways")

EXAMPLE: Final = '[[mqtt]]\nname = "mqtt"\nnetwork = "boats"\n'


class NewConfiguration(Body):
    toml: str = Field(
        max_length=TOML_BYTES_MAX,
        description="Listeners, as in the gateway's own file: sections mqtt, coap, http, tcp, udp, serial, modbus and "
        f"broker, at least one; up to {TOML_BYTES_MAX} bytes. They take the place of all listeners of that file.",
        examples=[EXAMPLE],
    )


class ListenerChange(BaseModel):
    name: str = Field(examples=["mqtt"])
    what: str = Field(
        description="kept, started, restarted, closed; rolled back, not started or failed.", examples=["started"]
    )
    reason: str = Field(examples=[""])


class Configuration(BaseModel):
    toml: str | None = Field(description="null: the gateway listens as its own file says.", examples=[EXAMPLE])
    revision: int = Field(description="Its ETag. 0: none was ever put.", examples=[1772353860012])
    put_at: datetime.datetime | None = Field(description="Or taken back. null: never.")
    state: Literal["pending", "applied", "refused"] | None = Field(
        description="pending: the gateway has said nothing of it yet, as when it is not connected. refused: all of it, "
        "and the gateway listens as before. null: none was ever put."
    )
    message: str = Field(description="Why it was refused.", examples=[""])
    remedy: str = Field(examples=[""])
    told_at: datetime.datetime | None = Field(description="When the gateway said so.")
    listeners: list[ListenerChange] = Field(description="What became of each.")


@router.get("", openapi_extra=needs("update"))  # it may hold what listeners sign in with elsewhere
async def get_gateway_configuration(
    gateway_id: GatewayPath, context: Context, tenant: InProject, response: Response
) -> Configuration:
    """For editors only: it may hold passwords."""
    async with tenant.connection() as conn:
        return _shown(await configurations.get(conn, tenant.project_id, gateway_id), response)


@router.put("")
async def put_gateway_configuration(
    gateway_id: GatewayPath,
    body: NewConfiguration,
    context: Context,
    tenant: InProject,
    expected: ExpectedRevision,
    response: Response,
) -> Configuration:
    """Sent to the gateway at once, or when it connects. It puts all of it in force, without dropping devices of
    listeners that stay as they are, or refuses it; `state` says so. What is in force already is not sent again."""
    try:
        check(body.toml)
    except ConfigError as error:
        raise invalid("toml", error.message, remedy=error.remedy) from None
    except NotPushableError as error:
        raise invalid("toml", str(error), limit=error.limit, remedy=error.remedy) from None
    return _shown(
        await tenant.run(lambda conn: configurations.put(conn, tenant.project_id, gateway_id, body.toml, expected)),
        response,
    )


@router.delete("")
async def take_back_gateway_configuration(
    gateway_id: GatewayPath, context: Context, tenant: InProject, expected: ExpectedRevision, response: Response
) -> Configuration:
    """The gateway returns to the listeners of its own file."""
    return _shown(
        await tenant.run(lambda conn: configurations.put(conn, tenant.project_id, gateway_id, None, expected)),
        response,
    )


def _shown(row: Row, response: Response) -> Configuration:
    set_etag(response, row.revision)
    state: Literal["pending", "applied", "refused"] | None = None
    if row.revision:
        state = "pending" if row.refused is None else "refused" if row.refused else "applied"
    return Configuration(
        toml=row.toml,
        revision=row.revision,
        put_at=row.put_at,
        state=state,
        message=row.refused or "",
        remedy=row.remedy,
        told_at=row.told_at,
        listeners=[ListenerChange(name=one.name, what=one.what, reason=one.reason) for one in row.listeners],
    )
