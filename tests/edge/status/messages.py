"""Message batches as the resolver shows them."""

from __future__ import annotations

from protocols.batch import BatchKey, RecordBatch
from protocols.messages import Clock, ClockState, Origin
from protocols.shipment import MessageBatch, Run
from sync.registry import Registry
from sync.resolve import Resolver
from tests.edge.site import registry

NOW_MS = 1_700_000_000_000


def resolved(
    *records: tuple[str, bytes], at_ms: int = NOW_MS, first_seq: int = 0, listener: str = "mqtt"
) -> tuple[MessageBatch, list[str]]:
    """Records as (alias, payload), received one millisecond after the other; and the listener of each."""
    known = Registry("demo")
    known.apply(registry())
    aliases = list(dict.fromkeys(alias for alias, _ in records))
    batch = RecordBatch(
        BatchKey(1, first_seq),
        Clock(1, 0, ClockState.SYNCHRONIZED),
        at_ms,
        [Origin("quay", "serial", alias, "up", "", listener) for alias in aliases],
        [aliases.index(alias) for alias, _ in records],
        list(range(len(records))),
        [payload for _, payload in records],
    )
    resolver = Resolver(known)
    resolver.add(Run(0, 9, first_seq, len(records)), [batch])
    return resolver.finish(), [listener] * len(records)
