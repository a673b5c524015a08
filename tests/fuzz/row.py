"""What the campaign found of one target: a row of its table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

HOLDS: Final = "holds"

COLUMNS: Final = {
    "target": "target",
    "cases": "cases",
    "coverage": "coverage",
    "features": "features",
    "good": "good messages",
    "idle_p50_ms": "idle p50",
    "idle_p99_ms": "p99",
    "fuzz_p50_ms": "under fuzz p50",
    "fuzz_p99_ms": "p99 ms",
    "grown_mb": "MB more",
    "result": "result",
}


class Row(msgspec.Struct, kw_only=True):
    target: str
    cases: int = 0
    coverage: int | None = None
    """Places in the code that were reached, as libFuzzer counts them."""
    features: int | None = None
    """With how often, and from where."""
    good: int | None = None
    """Messages of the neighbour that were acknowledged, and are in the log once and in order."""
    idle_p50_ms: float | None = None
    idle_p99_ms: float | None = None
    fuzz_p50_ms: float | None = None
    fuzz_p99_ms: float | None = None
    """From a message of the neighbour to its acknowledgement."""
    grown_mb: float | None = None
    """What the flood added to the gateway's memory."""
    result: str = HOLDS
    found: str = ""
    """What broke it, and how to try it again."""

    @property
    def holds(self) -> bool:
        return self.result == HOLDS


def quantile(values: Sequence[float], share: float) -> float | None:
    """None: there is none."""
    ordered = sorted(values)
    return round(ordered[min(int(len(ordered) * share), len(ordered) - 1)], 2) if ordered else None
