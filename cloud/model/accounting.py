"""The accounting: what became of each source's records and messages.

A record is accepted once its number is in the receiver's ranges, which are written after JetStream has it; so the
processor may have done it first, for as long as that takes, or until it is sent again after a crash between the two.
Its ranges prove it, and it is counted as accepted at once. All other hops are told of a batch after the commit of the
hop before them. So the equations hold at every moment.
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
    derived: int
    """Messages made from others, beside those that came."""
    records_at_writer: int
    """Done by the processor or replayed from the inbox, not done by the transponder: found from the ranges."""

    @property
    def closed(self) -> bool:
        """Whether both equations hold, and *in pipeline*, found two ways, agrees on being nothing."""
        records = self.decoded_records + self.rejected_records + self.dead_records + self.records_in_pipeline
        return (
            self.accepted == records and self.in_pipeline >= 0 and (self.records_at_writer > 0 or not self.in_pipeline)
        )


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
    processor_ahead: int,
) -> SourceAccount:
    """`fates`: the sums over all hops and epochs, each of claim.FATES. `processor_ahead`: records that the processor
    has done, and the receiver has not."""
    counts = dict(fates)
    counts["accepted"] += processor_ahead
    return SourceAccount(
        project_id=project_id,
        source_id=source_id,
        kind=kind,
        gateway_id=gateway_id,
        **counts,
        records_in_pipeline=records_in_pipeline,
        in_pipeline=counts["decoded"] - sum(counts[fate] for fate in _ENDS),
        records_at_writer=records_at_writer,
    )
