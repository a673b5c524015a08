"""Files of past telemetry: uploaded, looked at, read into the pipeline by a job."""

from __future__ import annotations

import asyncio
import datetime
import tempfile
from typing import Annotated, Any, Final, Literal

import msgspec
from fastapi import Path, Query, Request
from pydantic import BaseModel, Field

from cloud import imports as files
from cloud.api.bounds import FILE_BYTES_MAX
from cloud.api.context import Context
from cloud.api.fields import Body, Title
from cloud.api.jobs import Job, shown_job
from cloud.api.pages import Cursor, Limit, Page, decode_cursor, make_page
from cloud.api.problems import Problem, invalid
from cloud.api.routing import needs, resource
from cloud.api.tenancy import InProject
from cloud.db import devices, imports, jobs
from cloud.db.database import Connection
from cloud.db.errors import NotFoundError
from cloud.model.importing import (
    ImportMapping,
    Line,
    LineReader,
    MappingError,
    guessed,
    lines_of,
)
from cloud.services.imports import shown_text
from sync.registry import Alias

router = resource("/imports", "imports")

HELD_BYTES_MAX: Final = 4 * FILE_BYTES_MAX
"""Of all files of one project: whoever needs more deletes those that were read."""
UPLOADS_MAX: Final = 4
"""At a time, in one process: each is spooled to disk."""
SPOOL_BYTES: Final = 1024 * 1024
"""Of an upload, in memory."""
PREVIEW_MAX: Final = 500
FileId = Annotated[int, Path(ge=1, le=2**62, examples=[3])]
Column = Annotated[str, Field(max_length=200)]

_uploads: Final = asyncio.Semaphore(UPLOADS_MAX)


class Mapping(Body):
    """What the columns of a file mean; of NDJSON, a column is a name of each object."""

    format: Literal["csv", "ndjson"] = Field(default="csv", examples=["csv"])
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    decimal: str = Field(default=".", description="The decimal point, or a comma.", max_length=1)
    network_id: Column = Field(default="", description="Of all lines.", examples=["demo"])
    network_column: Column = Field(default="", description="Or where each line says it.")
    alias_key: Column = Field(default="", description="Empty, and no column: the network's.")
    alias_key_column: Column = ""
    alias: Column = Field(default="", description="Of all lines: the file is of one device.")
    alias_column: Column = Field(default="", description="Or where each line says it.", examples=["serial"])
    time_column: Column = Field(default="time", examples=["time"])
    time_format: Column = Field(
        default="",
        description="Empty: RFC 3339, Unix milliseconds or seconds; s, ms, us, ns, min: a number of these since 1970; "
        "else as strptime writes it.",
        examples=["%d.%m.%Y %H:%M"],
    )
    time_zone: Column = Field(default="UTC", description="Of times that name none.", examples=["Europe/Berlin"])
    attributes: dict[Column, Column] = Field(
        default={}, max_length=512, description="Attribute to column; empty: all that are left.", examples=[{}]
    )
    types: dict[Column, Column] = Field(
        default={}, max_length=512, description="Column to number, text or boolean; else as it looks.", examples=[{}]
    )
    key: Literal["line", "payload"] = Field(
        default="line",
        description="line: the same line of a device is stored once, whichever files hold it, however often they are "
        "run; payload: the network's message key says what is the same.",
    )

    def row(self) -> ImportMapping:
        return msgspec.convert(self.model_dump(), ImportMapping)


class ImportFile(BaseModel):
    id: int = Field(examples=[3])
    name: str = Field(examples=["summer.csv"])
    size_bytes: int = Field(examples=[48213])
    lines: int = Field(examples=[1200])
    format: str = Field(description="As its first line looks.", examples=["csv"])
    delimiter: str = Field(examples=[","])
    columns: list[str] = Field(examples=[["time", "serial", "temperature"]])
    created_at: datetime.datetime


class PreviewLine(BaseModel):
    line: int = Field(examples=[2])
    problem: str | None = Field(description="Why it cannot be read.", examples=[None])
    text: str | None = Field(description="The line, if it cannot be read.", examples=[None])
    network_id: str | None = Field(examples=["demo"])
    alias_key: str | None = Field(description="null: the network's.", examples=[None])
    alias: str | None = Field(examples=["bench-01"])
    device_known: bool | None = Field(description="False: its messages will wait in the inbox.", examples=[True])
    time: int | None = Field(description="Unix milliseconds.", examples=[1772353800000])
    data: dict[str, Any] | None = Field(examples=[{"temperature": 71.5}])


class Preview(BaseModel):
    lines: list[PreviewLine]
    problems: int = Field(description="How many of them cannot be read.", examples=[0])


class RejectedLine(BaseModel):
    line: int = Field(examples=[17])
    detail: str = Field(examples=["'time' is not a time: 'yesterday'; Unix milliseconds or RFC 3339 is expected"])
    text: str = Field(description="Its beginning.", examples=["yesterday,bench-01,71.5"])


@router.post(
    "",
    status_code=201,
    openapi_extra={
        **needs("ingest"),
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        },
    },
)
async def upload(
    request: Request, tenant: InProject, name: Annotated[Title, Query(examples=["summer.csv"])] = "file"
) -> ImportFile:
    """The body is the file: CSV with a line of names, or NDJSON, UTF-8, up to 64 MiB. Nothing is read into the pipeline
    yet: look at it with a mapping (`…/preview`), then run it (`…/run`)."""
    async with tenant.connection() as conn:
        held = await imports.held_bytes(conn, tenant.project_id)
    if held >= HELD_BYTES_MAX:
        raise invalid(
            "body",
            f"{held:,} bytes of files are held already",
            limit=HELD_BYTES_MAX,
            remedy="delete some that were run",
        )
    if _uploads.locked():
        detail = f"{UPLOADS_MAX} files are being uploaded already"
        raise Problem(503, "busy", "Busy", detail, remedy="send it again", headers={"Retry-After": "5"})
    async with _uploads:
        with tempfile.SpooledTemporaryFile(SPOOL_BYTES) as file:
            async for part in request.stream():
                await asyncio.to_thread(file.write, part)
            try:
                return _shown(await tenant.run(lambda conn: files.keep(conn, tenant.project_id, name, file)))
            except files.FileError as error:
                raise invalid("body", error.detail, limit=error.limit) from None


@router.get("")
async def list_imports(tenant: InProject, limit: Limit = 100, cursor: Cursor = None) -> Page[ImportFile]:
    """Files that are held, the newest first."""
    async with tenant.connection() as conn:
        rows = await imports.page(conn, tenant.project_id, after=decode_cursor(cursor, int), limit=limit + 1)
    return make_page(rows, limit, lambda row: row.id, _shown)


@router.get("/{file_id}")
async def get_import(file_id: FileId, tenant: InProject) -> ImportFile:
    """A file that is held, and what became of its lines."""
    async with tenant.connection() as conn:
        return _shown(await imports.get(conn, tenant.project_id, file_id))


@router.delete("/{file_id}", status_code=204)
async def delete_import(file_id: FileId, tenant: InProject) -> None:
    """What it brought stays. Refused while a job reads it."""
    await tenant.run(lambda conn: imports.delete(conn, tenant.project_id, file_id))


@router.post("/{file_id}/preview", openapi_extra=needs("read"))
async def preview_import(
    file_id: FileId,
    body: Mapping,
    context: Context,
    tenant: InProject,
    limit: Annotated[int, Query(ge=1, le=PREVIEW_MAX, description="Lines to look at.")] = 20,
) -> Preview:
    """The first lines as they would be read. Nothing is recorded."""
    mapping = body.row()
    async with tenant.connection() as conn:
        row = await imports.get(conn, tenant.project_id, file_id)
        data = await imports.beginning(conn, file_id)
        reader = _reader(mapping, row.head)
        numbered = list(lines_of(data, 1, has_header=mapping.format == "csv"))[:limit]
        found = reader.read([line for _, line in numbered], context.wall_ms())
        lines = [
            PreviewLine(**await _looked_at(conn, tenant.project_id, number, text, held))
            for (number, text), held in zip(numbered, found, strict=True)
        ]
    return Preview(lines=lines, problems=sum(line.problem is not None for line in lines))


@router.post("/{file_id}/run", status_code=201, openapi_extra=needs("ingest"))
async def run_import(file_id: FileId, body: Mapping, tenant: InProject) -> Job:
    """Begins to read the file into the pipeline, as a job (`/jobs/{number}`). Its `result` says how many records it
    gave, and how many lines were rejected; `/imports/problems/{number}` lists those. Lines that were
    read before, from this file or another, are stored once."""
    mapping = body.row()

    try:
        return shown_job(await tenant.run(lambda conn: files.begin(conn, tenant.project_id, file_id, mapping)))
    except MappingError as error:
        raise invalid(error.field, error.detail) from None


@router.get("/problems/{number}")
async def list_problems(
    number: Annotated[int, Path(ge=1, le=2**62, description="Of the job.", examples=[7])],
    tenant: InProject,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[RejectedLine]:
    """Lines that a job could not read, by number; the first 1,000 of them."""
    async with tenant.connection() as conn:
        await jobs.get(conn, tenant.project_id, number)
        rows = await imports.problems(
            conn, tenant.project_id, number, after=decode_cursor(cursor, int), limit=limit + 1
        )
    return make_page(
        rows, limit, lambda row: row.line, lambda row: RejectedLine(line=row.line, detail=row.detail, text=row.text)
    )


def _reader(mapping: ImportMapping, head: bytes) -> LineReader:
    try:
        return LineReader(mapping, head)
    except MappingError as error:
        raise invalid(error.field, error.detail) from None


async def _looked_at(conn: Connection, project_id: str, number: int, text: bytes, held: Line | str) -> dict[str, Any]:
    if isinstance(held, str):
        nothing = dict.fromkeys(("network_id", "alias_key", "alias", "device_known", "time", "data"))
        return {"line": number, "problem": held, "text": shown_text(text), **nothing}
    return {
        "line": number,
        "problem": None,
        "text": None,
        "network_id": held.network_id,
        "alias_key": held.alias_key or None,
        "alias": held.alias,
        "device_known": await _is_known(conn, project_id, held),
        "time": held.time_ms,
        "data": msgspec.json.decode(held.data),
    }


async def _is_known(conn: Connection, project_id: str, line: Line) -> bool:
    key = line.alias_key or await imports.alias_key_of(conn, project_id, line.network_id)
    try:
        await devices.find(conn, project_id, Alias(line.network_id, key or "", line.alias))
    except NotFoundError:
        return False
    return True


def _shown(row: imports.ImportFile) -> ImportFile:
    format_, delimiter, columns = guessed(row.head)
    return ImportFile(
        id=row.id,
        name=row.name,
        size_bytes=row.size_bytes,
        lines=row.lines,
        format=format_,
        delimiter=delimiter,
        columns=columns,
        created_at=row.created_at,
    )
