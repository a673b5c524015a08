"""Rows of a query of history: pages of JSON, or all of them, one a line, as NDJSON or CSV."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Annotated, Any, Final, TypeVar

import msgspec
from fastapi import Depends, Header, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from cloud.api.history import NDJSON
from cloud.api.pages import Cursor
from cloud.table import CSV, csv_lines

ROWS_MAX: Final = 10_000
"""Rows of one page: what a chart can show, some 1 MB of JSON."""

Row = TypeVar("Row")


class Wanted(msgspec.Struct, frozen=True):
    """How a request wants its rows."""

    limit: int
    cursor: str | None
    stream: str
    """The media type of all rows; empty: a page."""


def _wanted(
    limit: Annotated[int, Query(ge=1, le=ROWS_MAX, description="Most rows to give.")] = 1000,
    cursor: Cursor = None,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> Wanted:
    return Wanted(limit, cursor, next((kind for kind in (NDJSON, CSV) if kind in accept), ""))


WantedRows = Annotated[Wanted, Depends(_wanted)]


def responses(page: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """For OpenAPI; `page`: what a page is."""
    streams = {kind: {"schema": {"type": "string"}} for kind in (NDJSON, CSV)}
    return {200: {"model": page, "content": streams}}


async def answer(
    wanted: Wanted,
    steps: AsyncIterator[list[Row]],
    *,
    page: Callable[[Sequence[Row]], Response],
    lines: Callable[[Sequence[Row]], bytes],
    columns: Sequence[str],
    cells: Callable[[Row], Sequence[Any]],
) -> Response:
    """`page` is given one row more than the limit, if there is one; `lines` writes NDJSON; `columns` and `cells` are of
    CSV."""
    if wanted.stream == NDJSON:
        return StreamingResponse(_written(steps, lines), media_type=NDJSON)
    if wanted.stream == CSV:
        head = csv_lines([columns])
        return StreamingResponse(_written(steps, lambda rows: csv_lines(map(cells, rows)), head), media_type=CSV)
    rows: list[Row] = []
    async for found in steps:
        rows += found
        if len(rows) > wanted.limit:
            break
    return page(rows)


async def _written(
    steps: AsyncIterator[list[Row]], write: Callable[[Sequence[Row]], bytes], head: bytes = b""
) -> AsyncIterator[bytes]:
    if head:
        yield head
    async for rows in steps:
        yield write(rows)
