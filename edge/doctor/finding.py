"""What a check says, and what it may look at."""

from __future__ import annotations

import enum
from pathlib import Path

import msgspec

from edge.config import EdgeConfig
from edge.data_folder import Running
from edge.status.accounting import Accounting


class State(enum.StrEnum):
    OK = "ok"
    WARNING = "warning"
    """It works, or will; somebody should know."""
    FAILED = "failed"
    """Something does not work, or messages are at risk."""


class Finding(msgspec.Struct, frozen=True):
    check: str
    state: State
    seen: str
    remedy: str = ""
    """What to do; empty where there is nothing."""


class Site(msgspec.Struct, frozen=True):
    """The gateway that is looked at. Checks change nothing of it."""

    config: EdgeConfig
    running: Running | None
    """The gateway that runs on the data folder."""
    accounting: Accounting | None
    """What it says of itself; None where none runs, or it does not answer."""
    enroll_command: str
    start_command: str

    @property
    def data_dir(self) -> Path:
        return self.config.data_dir


def ok(check: str, seen: str) -> Finding:
    return Finding(check, State.OK, seen)


def warning(check: str, seen: str, remedy: str) -> Finding:
    return Finding(check, State.WARNING, seen, remedy)


def failed(check: str, seen: str, remedy: str) -> Finding:
    return Finding(check, State.FAILED, seen, remedy)
