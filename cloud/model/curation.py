"""What the curator did, or would do: the report of one run for one project."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import Literal, TypeAlias

import msgspec

Action: TypeAlias = Literal["dropped", "deleted", "stripped"]
"""dropped: with their whole partition; stripped: of attributes, the messages stay."""


class Line(msgspec.Struct, frozen=True):
    """What a rule did to a table."""

    table: str
    rule: str
    action: Action
    rows_before: int
    """That the rule was about, before."""
    rows: int
    """That are gone, or stripped. In a dry run: that would be."""
    rows_after: int
    """That the rule is about still: what came meanwhile, or could not be had."""
    row_bytes: int
    """What they held as PostgreSQL stores rows, without their index entries."""


class Size(msgspec.Struct, frozen=True):
    """What a table has on disk, with its indexes: of all projects that share it."""

    table: str
    bytes_before: int
    bytes_after: int
    """0: it is dropped. What deleted rows leave inside a table is used again, and given back only from its end."""


class Report(msgspec.Struct, frozen=True):
    number: int
    project_id: str
    dry_run: bool
    asked_at: datetime.datetime
    started_at: datetime.datetime | None = None
    """None: it waits for the curator."""
    finished_at: datetime.datetime | None = None
    lines: tuple[Line, ...] = ()
    sizes: tuple[Size, ...] = ()
    lock_waits: int = 0
    """How often a lock was not to be had within its time, and was let go for writers' sake."""
    problem: str = ""
    """Why it did not do all; the next run goes on."""


def added(lines: Iterable[Line]) -> tuple[Line, ...]:
    """One line for each table, rule and action, in this order."""
    found: dict[tuple[str, str, Action], Line] = {}
    for line in lines:
        key = (line.table, line.rule, line.action)
        held = found.get(key)
        found[key] = (
            line
            if held is None
            else Line(
                *key,
                held.rows_before + line.rows_before,
                held.rows + line.rows,
                held.rows_after + line.rows_after,
                held.row_bytes + line.row_bytes,
            )
        )
    return tuple(found[key] for key in sorted(found))
