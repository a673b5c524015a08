"""What a gateway's status API says, for tests of those who ask."""

from __future__ import annotations

from typing import Any


def gateway_accounting(
    totals: dict[str, int], *, link: str = "up", closed: bool = True, tails: int = 0
) -> dict[str, Any]:
    return {
        "gateway": "quay-1",
        "totals": totals,
        "closed": closed,
        "link": {"state": link, "drain_s": None},
        "log": {"used_bytes": 0, "max_bytes": 2_000_000_000, "tails": tails},
        "registry": {"devices": 21},
    }
