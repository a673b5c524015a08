"""A proof in words and columns: for the screen and for reports. Pure."""

from __future__ import annotations

from typing import Final

from firmware_sim.gaps import gaps_line
from firmware_sim.verdict import Verdict
from firmware_sim.verify import Outcome, Proof, source_line

COLUMNS: Final = {
    "network": "network",
    "name": "device",
    "made": "made",
    "sent": "sent",
    "packets": "sendings",
    "acknowledged": "acknowledged",
    "stored": "stored",
    "in_gaps": "in gaps",
    "missing": "missing",
    "doubled": "doubled",
    "unacknowledged": "unacknowledged",
    "unsent": "unsent",
    "dropped": "dropped",
}

RARE_COLUMNS: Final = {"malformed": "malformed", "rejected": "rejected", "unresolved": "unresolved"}
"""Shown where there is something in them."""


def columns_of(proof: Proof) -> dict[str, str]:
    """Of the table of verdicts. What may still come is not called missing."""
    columns = dict(COLUMNS) if proof.verdict is not Outcome.WAITING else COLUMNS | {"missing": "not there yet"}
    return columns | {name: word for name, word in RARE_COLUMNS.items() if getattr(proof.total, name)}


def accounts(proof: Proof) -> list[tuple[str, str]]:
    """What the accounts say, whose it is before it: the gateways', the cloud's, and what gateways lost."""
    found = [("gateway", gateway.line()) for gateway in proof.pipeline.gateways]
    found += [
        ("cloud", source_line(source))
        for source in proof.pipeline.sources
        if source["accepted"] or source["decoded"]  # else nothing ever came that way
    ]
    return found + ([("gaps", gaps_line(proof.gaps))] if proof.gaps else [])


def conclusion(proof: Proof) -> list[str]:
    """The verdict, a line each for what it is made of."""
    sign = "…" if proof.verdict is Outcome.WAITING else "✗"
    lines = [f"{sign} {line}" for line in faults(proof)]
    if proof.holds:
        moving = "; a fleet is still sending, its newest messages are not part of this" if proof.fleet_running else ""
        gone = f"; {proof.total.in_gaps:,} lost, and accounted for by gaps" if proof.total.in_gaps else ""
        lines.append(f"✓ nothing missing, nothing doubled, accounting closed{gone}{moving}")
    total = proof.total
    if total.unpromised:
        lines.append(
            f"· of {total.unpromised:,} others, which nobody acknowledges (QoS 0, polled units),"
            f" {total.unpromised_stored:,} are stored"
        )
    return lines


def faults(proof: Proof) -> list[str]:
    """Why the proof does not hold, in words."""
    total = proof.total
    found: list[str] = []
    if proof.verdict is Outcome.LOST:
        if total.missing:
            found.append(f"{total.missing:,} acknowledged messages are not stored, and in no gap")
        if total.doubled:
            found.append(f"{total.doubled:,} rows too many are stored")
        found += [f"  {fault}" for fault in total.faults]
    elif total.missing and not proof.pipeline.unreachable:
        return [_waiting(proof)]
    found += [f"accounting does not close: {equation}" for equation in proof.open_equations]
    if proof.pipeline.unreachable:
        found.append(f"no answer: {proof.pipeline.unreachable}")
    elif not proof.at_rest and not proof.fleet_running:
        found.append(
            f"still on its way: pending {proof.pipeline.pending:,}, in pipeline {proof.pipeline.in_pipeline:,}"
            " (a longer --wait may be all that it takes)"
        )
    return found


def _waiting(proof: Proof) -> str:
    """Where what is not stored is, and what to do about it."""
    count = f"not proven yet: {proof.total.missing:,} acknowledged messages"
    down = [gateway for gateway in proof.pipeline.gateways if gateway.link.state != "up"]
    if down and proof.pipeline.pending:
        return f"{count} wait on the gateway's disk (link {down[0].link.state}); plug in and repeat"
    return f"{count} are on their way; repeat, or a longer --wait"


def row_of(verdict: Verdict) -> dict[str, object]:
    return {key: getattr(verdict, key) for key in COLUMNS | RARE_COLUMNS}
