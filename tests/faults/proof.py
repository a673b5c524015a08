"""What must hold at the end of a row, from the ledger, the gateways' accounting and the cloud's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.faults.row import Finding

GAP_FATES = ("evicted", "damaged")


def judge(
    proof: Mapping[str, Any],
    gateways: Sequence[Mapping[str, Any]],
    cloud: Mapping[str, Any],
    *,
    unspoken: int = 0,
    exact: bool = False,
    agree: bool = True,
    may_lose: bool = False,
    spared: str = "",
    more: Mapping[str, bool] | None = None,
    note: str = "",
) -> Finding:
    """`proof`: what `tidegate-sim verify --json` printed; `gateways`, `cloud`: the accounting of both sides.

    `unspoken`: acknowledged messages that went with a store that was taken away whole. `exact`: no message was sent
    twice and each that is gone was acknowledged, so the gaps' records are the messages that are missing. `agree`: the
    gateways' logs are those that they began with, so what they count as accepted is what the cloud accepted.
    `may_lose`: the fault is damage, so gaps may be. `spared`: a device of which nothing may be missing all the same."""
    total = proof["total"]
    gaps = sum(gateway["totals"][fate] for gateway in gateways for fate in GAP_FATES)
    lost = max(0, total["missing"] - gaps - unspoken)
    told = [cloud["total"][fate] for fate in GAP_FATES if fate in cloud["total"]]
    accepted = sum(gateway["totals"]["accepted"] for gateway in gateways)
    holds = {
        f"{lost:,} acknowledged messages are neither stored nor in a gap": not lost,
        f"{total['doubled']:,} rows are stored too often": not total["doubled"],
        f"{gaps:,} records are in gaps, {total['missing']:,} messages are missing": not exact
        or gaps + unspoken == total["missing"],
        f"{gaps:,} records are in gaps, and nothing was damaged": may_lose or not gaps,
        f"gaps of {gaps:,} records at the gateway, of {sum(told):,} in the cloud": not told or sum(told) == gaps,
        "a gateway's accounting does not close": all(gateway["closed"] for gateway in gateways),
        "the cloud's accounting does not close": cloud["closed"],
        f"the gateway counts {accepted:,} records as accepted, the cloud {cloud['total']['accepted']:,}": not agree
        or accepted == cloud["total"]["accepted"],
        "something was still on its way": proof["at_rest"],
        "a log is over its cap": all(one["log"]["used_bytes"] <= one["log"]["max_bytes"] for one in gateways),
        f"messages of {spared} are missing": not any(
            one["missing"] for one in proof["devices"] if one["name"] == spared
        ),
        **(more or {}),
    }
    broken = [words for words, well in holds.items() if not well]
    broken += [f"  {fault}" for fault in total["faults"] if lost or total["doubled"]]
    return Finding(
        messages=total["made"],
        acknowledged=total["acknowledged"],
        stored=total["stored"],
        gaps=gaps,
        lost=lost,
        doubled=total["doubled"],
        broken=tuple(broken),
        held=sum(holds.values()),
        note=note,
    )
