"""Files of past telemetry, and what their jobs could not read."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator, Sequence
from typing import Final

import asyncpg
import msgspec

from cloud.db.database import Connection
from cloud.db.errors import InUseError, NotFoundError
from cloud.model.importing import Chunk, LineProblem

_COLUMNS: Final = "id, project_id, name, size_bytes, lines, head, created_at"
KIND: Final = "import"
"""Of the jobs that read them; `asked` has `file` and `mapping`."""


class ImportFile(msgspec.Struct, frozen=True):
    id: int
    project_id: str
    name: str
    size_bytes: int
    lines: int
    head: bytes
    """The first line."""
    created_at: datetime.datetime


async def create(
    conn: Connection, project_id: str, name: str, head: bytes, chunks: AsyncIterator[tuple[int, bytes]]
) -> ImportFile:
    """`chunks`: first line and data of each, in order, until its end."""
    file_id: int = await conn.fetchval(
        "INSERT INTO import_file (project_id, name, size_bytes, lines, head) VALUES ($1, $2, 0, 0, $3) RETURNING id",
        project_id,
        name,
        head,
    )
    size = lines = number = 0
    async for first_line, data in chunks:
        await conn.execute(
            "INSERT INTO import_chunk (file_id, number, first_line, data) VALUES ($1, $2, $3, $4)",
            file_id,
            number,
            first_line,
            data,
        )
        number += 1
        size += len(data)
        lines = first_line - 1 + data.count(b"\n") + (not data.endswith(b"\n"))
    await conn.execute("UPDATE import_file SET size_bytes = $2, lines = $3 WHERE id = $1", file_id, size, lines)
    return await get(conn, project_id, file_id)


async def get(conn: Connection, project_id: str, file_id: int) -> ImportFile:
    """Raises NotFoundError."""
    row = await conn.fetchrow(
        f"SELECT {_COLUMNS} FROM import_file WHERE project_id = $1 AND id = $2", project_id, file_id
    )
    if row is None:
        raise NotFoundError("import", file_id)
    return _file(row)


async def page(conn: Connection, project_id: str, *, after: int | None = None, limit: int) -> list[ImportFile]:
    """Newest first; those older than `after` only."""
    found = await conn.fetch(
        f"""SELECT {_COLUMNS} FROM import_file WHERE project_id = $1 AND ($2::bigint IS NULL OR id < $2)
            ORDER BY id DESC LIMIT $3""",
        project_id,
        after,
        limit,
    )
    return [_file(row) for row in found]


async def held_bytes(conn: Connection, project_id: str) -> int:
    """Of all files of the project."""
    found: int = await conn.fetchval(
        "SELECT coalesce(sum(size_bytes), 0)::bigint FROM import_file WHERE project_id = $1", project_id
    )
    return found


async def check_idle(conn: Connection, project_id: str, file_id: int) -> None:
    """Locks the file. Raises NotFoundError; InUseError while a job reads it."""
    if not await conn.fetch(
        "SELECT FROM import_file WHERE project_id = $1 AND id = $2 FOR UPDATE", project_id, file_id
    ):
        raise NotFoundError("import", file_id)
    job = await conn.fetchval(
        """SELECT number FROM job WHERE project_id = $1 AND kind = $2 AND finished_at IS NULL
           AND (asked ->> 'file')::bigint = $3""",
        project_id,
        KIND,
        file_id,
    )
    if job is not None:
        raise InUseError("import", str(file_id), f"job {job}")


async def delete(conn: Connection, project_id: str, file_id: int) -> None:
    """What it brought stays. Raises NotFoundError, InUseError."""
    await check_idle(conn, project_id, file_id)
    await conn.execute("DELETE FROM import_file WHERE id = $1", file_id)


async def beginning(conn: Connection, file_id: int) -> bytes:
    """Its first lines, some 64 KiB; all of a small file, whose last line may be a chunk of its own."""
    found = await conn.fetch("SELECT data FROM import_chunk WHERE file_id = $1 AND number < 2 ORDER BY number", file_id)
    return b"".join(row["data"] for row in found)


async def chunk(conn: Connection, project_id: str, file_id: int, number: int) -> Chunk | None:
    """None: there are no more. Raises NotFoundError: the file is gone."""
    file = await get(conn, project_id, file_id)
    row = await conn.fetchrow(
        """SELECT c.first_line, c.data, s.id AS source_id FROM import_chunk c, source s
           WHERE c.file_id = $1 AND c.number = $2 AND s.project_id = $3 AND s.kind = 'rest'""",
        file_id,
        number,
        project_id,
    )
    return None if row is None else Chunk(row["first_line"], row["data"], file.head, row["source_id"])


async def alias_key_of(conn: Connection, project_id: str, network_id: str) -> str | None:
    """The network's; None: there is no such network."""
    found: str | None = await conn.fetchval(
        "SELECT alias_key FROM network WHERE project_id = $1 AND id = $2", project_id, network_id
    )
    return found


async def add_problems(conn: Connection, project_id: str, job: int, problems: Sequence[LineProblem]) -> None:
    await conn.executemany(
        "INSERT INTO import_problem (project_id, job, line, detail, text) VALUES ($1, $2, $3, $4, $5)",
        [(project_id, job, problem.line, problem.detail, problem.text) for problem in problems],
    )


async def problems(
    conn: Connection, project_id: str, job: int, *, after: int | None = None, limit: int
) -> list[LineProblem]:
    """By line."""
    found = await conn.fetch(
        """SELECT line, detail, text FROM import_problem WHERE project_id = $1 AND job = $2
           AND ($3::bigint IS NULL OR line > $3) ORDER BY line LIMIT $4""",
        project_id,
        job,
        after,
        limit,
    )
    return [LineProblem(**dict(row)) for row in found]


def _file(row: asyncpg.Record) -> ImportFile:
    return ImportFile(**dict(row))
