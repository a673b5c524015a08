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
    may_wait: bool = False,
    spared: str = "",
    more: Mapping[str, bool] | None = None,
    note: str = "",
) -> Finding:
    """`proof`: what `tidegate-sim verify --json` printed; `gateways`, `cloud`: the accounting of both sides.

    `unspoken`: acknowledged messages that went with a store that was taken away whole. `exact`: no message was sent
    twice and each that is gone was acknowledged, so the gaps' records are the messages that are not stored. `agree`:
    the gateways' logs are those that they began with, so what they count is what the cloud counts. `may_lose`: the
    fault is damage, so gaps may be. `may_wait`: not all of it was waited for. `spared`: a device of which nothing may
    be missing all the same."""
    total = proof["total"]
    gaps = sum(cloud["total"][fate] for fate in GAP_FATES)
    own = sum(gateway["totals"][fate] for gateway in gateways for fate in GAP_FATES)
    gone = total["missing"] + total["in_gaps"]
    lost = max(0, total["missing"] - unspoken - (proof["on_its_way"] if may_wait else 0))
    accepted = sum(gateway["totals"]["accepted"] for gateway in gateways)
    holds = {
        f"{lost:,} acknowledged messages are neither stored nor in a gap": not lost,
        f"{total['doubled']:,} rows are stored too often": not total["doubled"],
        f"{gaps:,} records are in gaps, {gone:,} messages are not stored": not exact or gaps + unspoken == gone,
        f"{gaps:,} records are in gaps, and nothing was damaged": may_lose or not gaps,
        f"gaps of {own:,} records at the gateway, of {gaps:,} in the cloud": not agree or own == gaps,
        "a gateway's accounting does not close": all(gateway["closed"] for gateway in gateways),
        "the cloud's accounting does not close": cloud["closed"],
        f"the gateway counts {accepted:,} records as accepted, the cloud {cloud['total']['accepted']:,}": not agree
        or accepted == cloud["total"]["accepted"],
        "something was still on its way": may_wait or proof["at_rest"],
        "a log is over its cap": all(one["log"]["used_bytes"] <= one["log"]["max_bytes"] for one in gateways),
        **(more or {}),
    }
    if spared:
        (verdict,) = (one for one in proof["devices"] if one["name"] == spared)
        holds[f"messages of {spared} are not stored"] = not verdict["missing"] + verdict["in_gaps"]
    broken = [words for words, well in holds.items() if not well]
    broken += [f"  {fault}" for fault in total["faults"] if lost or total["doubled"]]
    return Finding(
        messages=total["made"],
        acknowledged=total["acknowledged"],
        stored=total["stored"],
        waiting=proof["on_its_way"] if may_wait else 0,
        gaps=gaps,
        lost=lost,
        doubled=total["doubled"],
        broken=tuple(broken),
        held=sum(holds.values()),
        note=note,
    )
