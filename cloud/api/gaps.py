"""What gateways have lost, and told."""

from __future__ import annotations

from typing import Any

from fastapi import Response
from pydantic import BaseModel, Field

from cloud.api.context import Context
from cloud.api.pages import Cursor, Limit, Page, decode_cursor, raw_page
from cloud.api.routing import resource
from cloud.api.tenancy import InProject
from cloud.db import gaps

router = resource("/gaps", "data")


class LostRecords(BaseModel):
    """Records of one run of a gateway that will never come. They are taken out again if they come after all."""

    seq: int
    gateway_id: str | None = Field(examples=["quay-1"])
    kind: str = Field(
        description="evicted: the gateway's log was full, and they were the oldest of the lowest priority. damaged: "
        "its disk does not give them back. tail: the end of a log that could not be read, of unknown length.",
        examples=["evicted"],
    )
    epoch: str = Field(description="The run of the gateway, hexadecimal.", examples=["5f1c8a526f5e4c8b"])
    first_seq: int = Field(description="The first record that is lost.", examples=[12480])
    end_seq: int = Field(description="The record after the last.", examples=[12980])
    records: int = Field(description="How many; 0 for a tail.", examples=[500])
    oldest_time: int | None = Field(description="When the first was received, about; null: not known.")
    newest_time: int | None = Field(description="When the last was received, about; null: not known.")
    noticed_time: int = Field(description="By the gateway's clock.")
    size_bytes: int = Field(description="Of a tail: bytes that could not be read.", examples=[0])


@router.get("", responses={200: {"model": Page[LostRecords]}})
async def list_gaps(context: Context, tenant: InProject, limit: Limit = 100, cursor: Cursor = None) -> Response:
    """The newest first."""
    async with tenant.connection() as conn:
        rows = await gaps.page(conn, tenant.project_id, after=decode_cursor(cursor, int), limit=limit + 1)
    return raw_page(rows, limit, lambda row: row.seq, _shown)


def _shown(row: gaps.GapRow) -> dict[str, Any]:
    gap = row.gap
    return {
        "seq": row.seq,
        "gateway_id": row.gateway_id,
        "kind": gap.kind.value,
        "epoch": f"{gap.epoch:016x}",
        "first_seq": gap.first_seq,
        "end_seq": gap.end_seq,
        "records": gap.records,
        "oldest_time": gap.oldest_ms or None,
        "newest_time": gap.newest_ms or None,
        "noticed_time": gap.noticed_ms,
        "size_bytes": gap.size_bytes,
    }
