"""The accounting: what became of each source's records and messages.

A hop publishes before it commits, so the next one may have committed its part of a batch first; after a crash between
the two, for as long as the redelivery takes. The ranges show what the later hop has, and that proves what the earlier
one is about to count: a record that the processor has done is accepted, a message that is stored was decoded and is
not unresolved. The account says so at once, and the equations hold at every moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec


class SourceAccount(msgspec.Struct, frozen=True):
    """The cloud's accounting of one source; each equation holds at any moment.

    Records: accepted = decoded_records + rejected_records + dead_records + records_in_pipeline.
    Messages: decoded = stored + repeated + unresolved + rejected + stopped + dead + in_pipeline.
    What the gateway has lost stands apart: its own equation, logged = accepted + pending + evicted + damaged, has it.
    """

    project_id: str
    source_id: int
    kind: str
    gateway_id: str | None
    accepted: int
    decoded_records: int
    rejected_records: int
    dead_records: int
    records_in_pipeline: int
    """Accepted by the receiver, not done by the processor: found from the ranges of both."""
    decoded: int
    stored: int
    repeated: int
    unresolved: int
    rejected: int
    stopped: int
    dead: int
    in_pipeline: int
    evicted: int
    """Records that the gateway's full log gave up."""
    damaged: int
    """Records that the gateway's disk does not give back."""
    tails: int
    """Ends of logs, of unknown length, that could not be read: at most the last write of a run each."""
    records_at_writer: int
    """Done by the processor or replayed from the inbox, not done by the transponder: found from the ranges."""
    writer_ahead: int
    """Done by the transponder, not committed yet by who sent it: found from the ranges."""

    @property
    def closed(self) -> bool:
        """Whether both equations hold, and *in pipeline*, found two ways, agrees on being nothing."""
        records = self.decoded_records + self.rejected_records + self.dead_records + self.records_in_pipeline
        moving = self.records_at_writer > 0 or self.writer_ahead > 0
        return self.accepted == records and self.in_pipeline >= 0 and (moving or self.in_pipeline == 0)


class Ahead(msgspec.Struct, frozen=True):
    """How far hops have gone beyond those before them: what is committed in the wrong order, and proves the rest."""

    processor: int
    """Records done by the processor and not by the receiver."""
    writer: int
    """Records done by the transponder and not by who sent them."""
    replayed: int
    """Messages of the inbox that the transponder has, and the replay has not taken out yet."""


_ENDS: Final = ("stored", "repeated", "unresolved", "rejected", "stopped", "dead")


def account(
    project_id: str,
    source_id: int,
    kind: str,
    gateway_id: str | None,
    fates: Mapping[str, int],
    *,
    records_in_pipeline: int,
    records_at_writer: int,
    ahead: Ahead,
) -> SourceAccount:
    """`fates`: the sums over all hops and epochs, each of claim.FATES."""
    counts = dict(fates)
    counts["accepted"] += ahead.processor
    too_many = max(0, sum(counts[fate] for fate in _ENDS) - counts["decoded"])
    replayed = min(too_many, ahead.replayed)
    counts["unresolved"] -= replayed
    if ahead.writer:
        counts["decoded"] += too_many - replayed
    return SourceAccount(
        project_id=project_id,
        source_id=source_id,
        kind=kind,
        gateway_id=gateway_id,
        **counts,
        records_in_pipeline=records_in_pipeline,
        in_pipeline=counts["decoded"] - sum(counts[fate] for fate in _ENDS),
        records_at_writer=records_at_writer,
        writer_ahead=ahead.writer + ahead.replayed,
    )
