"""Revisions: every change of a project's networks, blueprints and devices has one, and they commit in order."""

from __future__ import annotations

from typing import Final, Literal

from cloud.db.database import Connection
from cloud.db.errors import ChangedError, NotFoundError

CHANNEL: Final = "registry"
"""The NOTIFY channel; the payload is the project's id."""
REVISIONS_KEPT: Final = 100_000
"""Tombstones are kept for so many revisions; a replica further behind takes a snapshot, which is cheaper by then."""

Kind = Literal["network", "blueprint", "device"]


async def next_revision(conn: Connection, project_id: str) -> int:
    """Begins a change: the first statement of its transaction. It locks the project's row, so that a project's changes
    go one after the other, and what is read after it stays true until the commit. Raises NotFoundError."""
    revision: int | None = await conn.fetchval(
        "UPDATE project SET revision = revision + 1 WHERE id = $1 RETURNING revision", project_id
    )
    if revision is None:
        raise NotFoundError("project", project_id)
    await conn.execute("SELECT pg_notify($1, $2)", CHANNEL, project_id)
    return revision


async def newest(conn: Connection, project_id: str, *, held: bool) -> int:
    """`held`: the share lock on the project's row lets no change commit until the transaction ends. Raises
    NotFoundError."""
    lock = " FOR SHARE" if held else ""
    revision: int | None = await conn.fetchval(f"SELECT revision FROM project WHERE id = $1{lock}", project_id)
    if revision is None:
        raise NotFoundError("project", project_id)
    return revision


async def bury(conn: Connection, project_id: str, kind: Kind, ref: object, revision: int) -> None:
    """Records a deletion for the replicas."""
    await conn.execute(
        """INSERT INTO tombstone (project_id, kind, ref, revision) VALUES ($1, $2, $3, $4)
           ON CONFLICT (project_id, kind, ref) DO UPDATE SET revision = excluded.revision""",
        project_id,
        kind,
        str(ref),
        revision,
    )
    await conn.execute(
        "DELETE FROM tombstone WHERE project_id = $1 AND revision <= $2", project_id, revision - REVISIONS_KEPT
    )


async def unbury(conn: Connection, project_id: str, kind: Kind, ref: object) -> None:
    """What was deleted exists again under the same id."""
    await conn.execute(
        "DELETE FROM tombstone WHERE project_id = $1 AND kind = $2 AND ref = $3", project_id, kind, str(ref)
    )


def check_revision(kind: Kind, ref: object, found: int, expected: int | None) -> None:
    """`expected`: the revision that the caller had read; None where it does not mind."""
    if expected is not None and expected != found:
        raise ChangedError(kind, ref, expected, found)
