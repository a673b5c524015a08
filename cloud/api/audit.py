"""The audit trail: every change of what is configured, by whom, and what it was before."""

from __future__ import annotations

import datetime
from typing import Annotated, Any

import msgspec
from fastapi import Query, Response
from pydantic import AwareDatetime, BaseModel, Field

from cloud.api.pages import Cursor, Limit, Page, decode_cursor, raw_page
from cloud.api.routing import needs, resource
from cloud.api.tenancy import InProject
from cloud.db import audit
from cloud.db.audit import Action, AuditFilter, AuditRow

router = resource("/audit", "access")


class AuditEntry(BaseModel):
    seq: int = Field(examples=[4711])
    at: datetime.datetime = Field(examples=["2026-03-01T08:30:00Z"])
    actor: str = Field(
        description="`user:` or `key:` and its name; tidegate: a service or command.", examples=["user:anna"]
    )
    action: Action
    kind: str = Field(examples=["device"])
    ref: str = Field(description="What it is called.", examples=["17"])
    before: dict[str, Any] | None = Field(description="Of a change: what differs. null: it is new.")
    after: dict[str, Any] | None = Field(description="Of a change: what differs. null: it is gone.")


Text = Annotated[str | None, Query(min_length=1, max_length=600)]


@router.get("", openapi_extra=needs("administer"), responses={200: {"model": Page[AuditEntry]}})
async def list_audit(
    tenant: InProject,
    kind: Annotated[Text, Query(description="Such as device, network, blueprint, access.", examples=["device"])] = None,
    ref: Annotated[Text, Query(description="Of this object.", examples=["17"])] = None,
    actor: Annotated[Text, Query(description="By this user or key.", examples=["user:anna"])] = None,
    from_at: Annotated[AwareDatetime | None, Query(alias="from", description="RFC 3339, inclusive.")] = None,
    to_at: Annotated[AwareDatetime | None, Query(alias="to", description="RFC 3339, exclusive.")] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Response:
    """The newest first. Of secrets, only the first digits of their hashes."""
    wanted = AuditFilter(kind, ref, actor, from_at, to_at)
    async with tenant.connection() as conn:
        rows = await audit.page(conn, tenant.project_id, wanted, after=decode_cursor(cursor, int), limit=limit + 1)
    return raw_page(rows, limit, lambda row: row.seq, _shown)


def _shown(row: AuditRow) -> dict[str, Any]:
    return {
        **msgspec.structs.asdict(row),
        "before": None if row.before is None else msgspec.Raw(row.before.encode()),
        "after": None if row.after is None else msgspec.Raw(row.after.encode()),
    }
