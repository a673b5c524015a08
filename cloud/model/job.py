"""Work that takes longer than a request."""

from __future__ import annotations

import datetime
from typing import Any, Final

import msgspec

STATES: Final = ("waiting", "running", "done", "failed", "cancelled")


class Job(msgspec.Struct, frozen=True):
    """What is asked for, and how far it is. It is done in steps, each a transaction that moves it on: so one that is
    cut off goes on where it was, and nothing is done twice."""

    number: int
    project_id: str
    kind: str
    asked: dict[str, Any]
    state: str
    cancel_asked: bool
    position: int
    """Where it goes on, as its kind counts."""
    done: int
    total: int
    """Progress, in what its kind counts for people."""
    result: dict[str, Any]
    """What has come of it so far."""
    error: str | None
    created_at: datetime.datetime
    started_at: datetime.datetime | None
    finished_at: datetime.datetime | None


class JobFailedError(Exception):
    """It cannot be done, now or later; the text says why."""
