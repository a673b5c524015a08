"""A row of the table: a fault, how it is injected, and what became of the messages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from tests.faults.bench import Bench


class Finding(msgspec.Struct, frozen=True):
    """What a row came to."""

    messages: int
    """Made by devices."""
    acknowledged: int
    stored: int
    waiting: int
    """Not stored yet, where a row ends before all of it is."""
    gaps: int
    """Records that are lost by the gaps that the cloud was told of."""
    lost: int
    """Acknowledged, and neither stored nor in a gap. Never happens."""
    doubled: int
    broken: tuple[str, ...]
    """Invariants that do not hold, in words."""
    held: int
    """How many hold."""
    note: str = ""
    """What happened, in figures."""

    @property
    def holds(self) -> bool:
        return not self.broken


class Row(msgspec.Struct, frozen=True):
    name: str
    fault: str
    injected: str
    run: Callable[[Bench], Awaitable[Finding]]
    limit_s: float
    """A row that takes longer does not hold."""
    needs: tuple[str, ...] = ()
    """Programs beside Tidegate's own, and `root`."""


class Outcome(msgspec.Struct, frozen=True):
    """A row that was run."""

    row: str
    fault: str
    injected: str
    seconds: float
    finding: Finding | None
    """None where it came to none."""
    error: str = ""
    """Why."""

    @property
    def holds(self) -> bool:
        return self.finding is not None and self.finding.holds


ROWS: Final[dict[str, Row]] = {}
"""By name."""


def row(
    name: str, fault: str, injected: str, *, limit_s: float = 180.0, needs: tuple[str, ...] = ()
) -> Callable[[Callable[[Bench], Awaitable[Finding]]], Callable[[Bench], Awaitable[Finding]]]:
    """Makes a function a row of the table."""

    def add(run: Callable[[Bench], Awaitable[Finding]]) -> Callable[[Bench], Awaitable[Finding]]:
        assert name not in ROWS
        ROWS[name] = Row(name, fault, injected, run, limit_s, needs)
        return run

    return add
