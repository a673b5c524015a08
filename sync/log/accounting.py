"""Where every record of the log is: *logged = accepted + pending + evicted + damaged*, at any moment, exactly."""

from __future__ import annotations

import msgspec


class EpochAccounting(msgspec.Struct, frozen=True, kw_only=True):
    """Records of one epoch of which some segment is left, or that is being written."""

    epoch: int
    logged: int
    accepted: int
    pending: int
    evicted: int
    damaged: int
    watermark: int
    """All records below this number are accepted, evicted or damaged."""


class LogAccounting(msgspec.Struct, frozen=True, kw_only=True):
    """Records of the log since it was made (of its state file, should that be lost)."""

    logged: int
    accepted: int
    pending: int
    evicted: int
    damaged: int
    tails: int
    """Ends of segments that were no block: never acknowledged, or damaged. Apart, as nobody knows how many records."""
    gaps_untold: int
    """Ranges of lost records, and tails, that the cloud does not know of yet."""
    epochs: tuple[EpochAccounting, ...]
    """Oldest first; epochs that are gone are in the totals only."""
    used_bytes: int
    """All files, prepared room included; never above `max_bytes`."""
    max_bytes: int
    segments: int
    oldest_pending_ms: int | None
    """Newest received time of the oldest pending block, Unix ms; while that block is being looked for on the disk, of
    one at most 1/64 segment before it. None: nothing is pending."""
    passed_over: int
    """Entries since the start whose key the log had."""
    groups: int
    """Group commits since the start."""
    syncs: int
    """Synced writes of blocks since the start."""
