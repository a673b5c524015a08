"""One line of the benchmark table."""

from __future__ import annotations

import msgspec


class Row(msgspec.Struct, frozen=True):
    stage: str
    measured: float
    unit: str
    goal: float | None = None
    """What the design asks for; None: shown, not asked for."""
    at_most: bool = False
    """Less is better."""
    baseline: str = ""
    baseline_measured: float | None = None
    """The bare means on the same machine in the same run, in the same unit."""
    note: str = ""

    @property
    def reached(self) -> bool | None:
        if self.goal is None:
            return None
        return self.measured <= self.goal if self.at_most else self.measured >= self.goal

    @property
    def ratio(self) -> float | None:
        """To the baseline: above 1 is more of the unit than it."""
        return self.measured / self.baseline_measured if self.baseline_measured else None
