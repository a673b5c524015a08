"""The accounting: what came, and what became of it."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from fastapi import Response
from pydantic import BaseModel, Field

from cloud.api.context import Context
from cloud.api.pages import raw_json
from cloud.api.routing import resource
from cloud.api.tenancy import InProject
from cloud.db import accounting
from cloud.model.accounting import SourceAccount

router = resource("/accounting", "data")


class Counts(BaseModel):
    """Records: accepted = decoded_records + rejected_records + dead_records + records_in_pipeline. Messages: decoded =
    stored + repeated + unresolved + rejected + stopped + dead + in_pipeline. Beside them what never came: a gateway's
    logged = accepted + pending + evicted + damaged."""

    accepted: int = Field(description="Records that are durable here.", examples=[12460])
    decoded_records: int = Field(description="Records that gave messages.", examples=[12458])
    rejected_records: int = Field(description="Records that do not decode; they are kept under /rejects.", examples=[2])
    dead_records: int = Field(description="Records that a service failed on for good.", examples=[0])
    records_in_pipeline: int = Field(description="Records that no service has worked on yet.", examples=[0])
    decoded: int = Field(description="Messages.", examples=[12458])
    stored: int = Field(description="Messages in history.", examples=[12440])
    repeated: int = Field(description="Messages that another record had brought before.", examples=[6])
    unresolved: int = Field(description="Messages of unknown devices, under /inbox.", examples=[12])
    rejected: int = Field(examples=[0])
    stopped: int = Field(description="Messages that their route leads nowhere.", examples=[0])
    dead: int = Field(description="Messages that a service failed on for good.", examples=[0])
    in_pipeline: int = Field(description="Messages on their way.", examples=[0])
    evicted: int = Field(description="Records that gateways' full logs gave up; they are under /gaps.", examples=[0])
    damaged: int = Field(description="Records that gateways' disks do not give back, under /gaps.", examples=[0])
    tails: int = Field(
        description="Unreadable ends of gateways' logs, under /gaps: at most the last write before a crash each, which "
        "was acknowledged to nobody unless the disk failed.",
        examples=[0],
    )
    derived: int = Field(
        description="Messages in history beside those that came: forwarded to other devices by relationships.",
        examples=[0],
    )


class SourceCounts(Counts):
    kind: str = Field(description="gateway, rest (HTTP ingest) or inbox.", examples=["gateway"])
    gateway_id: str | None = Field(examples=["quay-1"])
    closed: bool = Field(description="Both equations hold.", examples=[True])


class Accounting(BaseModel):
    project_id: str = Field(examples=["demo"])
    closed: bool = Field(description="Both equations hold, for every source.", examples=[True])
    total: Counts
    sources: list[SourceCounts]


_COUNTS: Final = tuple(Counts.model_fields)


@router.get("", responses={200: {"model": Accounting}})
async def get_accounting(context: Context, tenant: InProject) -> Response:
    """Of the project in total and of each of its sources, all of one moment."""
    async with tenant.connection() as conn:
        accounts = await accounting.by_source(conn, tenant.project_id)
    total = {name: sum(getattr(account, name) for account in accounts) for name in _COUNTS}
    closed = all(account.closed for account in accounts)
    sources = [_shown(account) for account in accounts]
    return raw_json({"project_id": tenant.project_id, "closed": closed, "total": total, "sources": sources})


def _shown(account: SourceAccount) -> dict[str, Any]:
    return {**msgspec.structs.asdict(account), "closed": account.closed}
