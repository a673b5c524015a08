"""Files of past telemetry, as the API and `tidegate-cloud import` take them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from typing import IO, Final

import msgspec

from cloud.db import imports, jobs
from cloud.db.database import Connection, Database
from cloud.model.importing import CHUNK_BYTES, LINE_BYTES_MAX, ImportMapping, LineReader, MappingError, lines_of
from cloud.model.job import Job

LOOK_EVERY_S: Final = 0.25
PREVIEW_LINES: Final = 20


class FileError(Exception):
    """The file is none; the text says why. `limit`: of what."""

    def __init__(self, detail: str, limit: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.limit = limit


async def keep(conn: Connection, project_id: str, name: str, file: IO[bytes]) -> imports.ImportFile:
    """Keeps the whole file, which is read from its beginning, and off the event loop. Raises FileError."""
    await asyncio.to_thread(file.seek, 0)
    head = await asyncio.to_thread(file.readline, LINE_BYTES_MAX + 1)
    if not head.strip():
        raise FileError("the file is empty, or begins with an empty line")
    await asyncio.to_thread(file.seek, 0)
    return await imports.create(conn, project_id, name, head, _chunks(file))


async def begin(conn: Connection, project_id: str, file_id: int, mapping: ImportMapping) -> Job:
    """The job that reads a file. Raises MappingError, NotFoundError; InUseError while another one does."""
    await imports.check_idle(conn, project_id, file_id)
    row = await imports.get(conn, project_id, file_id)
    LineReader(mapping, row.head)
    epoch = f"{secrets.randbits(63) or 1:016x}"
    asked = {"file": file_id, "epoch": epoch, "mapping": msgspec.to_builtins(mapping)}
    return await jobs.create(conn, project_id, imports.KIND, asked, row.lines)


def first_problems(file: IO[bytes], mapping: ImportMapping, now_ms: int) -> list[tuple[int, str]]:
    """(line, what is wrong) of its first lines. Raises MappingError."""
    head = file.readline(LINE_BYTES_MAX + 1)
    data = head + b"".join(file.readline(LINE_BYTES_MAX + 1) for _ in range(PREVIEW_LINES))
    reader = LineReader(mapping, head)
    numbered = list(lines_of(data, 1, has_header=mapping.format == "csv"))
    found = reader.read([line for _, line in numbered], now_ms)
    return [(number, each) for (number, _), each in zip(numbered, found, strict=True) if isinstance(each, str)]


async def bring(
    database: Database,
    project_id: str,
    name: str,
    file: IO[bytes],
    mapping: ImportMapping,
    told: Callable[[Job], None],
    *,
    wait: bool,
) -> Job:
    """Keeps the file and has it read; `wait`: until that has ended, which the service `replay` has to run for; then the
    file is let go. `told` is called with each state that is seen. Raises DatabaseError, FileError, MappingError."""

    async def both(conn: Connection) -> Job:
        kept = await keep(conn, project_id, name, file)
        return await begin(conn, project_id, kept.id, mapping)

    found = await database.run(both)
    told(found)
    while wait and found.finished_at is None:
        await asyncio.sleep(LOOK_EVERY_S)
        async with database.connection() as conn:
            found = await jobs.get(conn, project_id, found.number)
        told(found)
    if found.finished_at is not None:
        await database.run(lambda conn: imports.delete(conn, project_id, found.asked["file"]))
    return found


async def _chunks(file: IO[bytes]) -> AsyncIterator[tuple[int, bytes]]:
    """First line and data of each, cut at the ends of lines. Raises FileError: a line is too long."""
    first_line = 1
    rest = b""
    while True:
        part = await asyncio.to_thread(file.read, CHUNK_BYTES)
        data = rest + part
        cut = data.rfind(b"\n") + 1 if part else len(data)
        whole, rest = data[:cut], data[cut:]
        if max(len(rest), *map(len, whole.split(b"\n"))) > LINE_BYTES_MAX:
            raise FileError(f"a line behind line {first_line} is too long", LINE_BYTES_MAX)
        if whole:
            yield first_line, whole
            first_line += whole.count(b"\n")
        if not part:
            return


__all__ = ["FileError", "MappingError", "begin", "bring", "first_problems", "keep"]
