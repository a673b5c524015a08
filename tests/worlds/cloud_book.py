"""What the cloud's engines were told, and what has to hold of the tables at each commit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from cloud.model.accounting import SourceAccount, account
from cloud.model.claim import FATES
from cloud.model.output import Unsent
from cloud.topics import DEFAULT_PROCESSOR, PROCESSOR, TRANSPONDER, WRITER
from protocols.block import read_head
from protocols.messages import Gap, GapKind
from protocols.shipment import Run, decode_messages, decode_shipment
from sync.ranges import Ranges
from tests.worlds.gateway_book import GatewayBook
from tests.worlds.laws import Laws
from tests.worlds.registry import PROJECT
from tests.worlds.store import CurrentValue, MemoryTransaction, Progress, Tables
from tests.worlds.trace import Trace

RECEIVER: Final = "receiver"
GAP: Final = "gap"
ACCOUNT_EVERY: Final = 25
"""Commits between two looks at the accounting."""

PUBLISHES: Final = {RECEIVER: DEFAULT_PROCESSOR, PROCESSOR: WRITER}
"""What a hop gives to another topic, before it commits or in the transaction itself."""


class CloudBook:
    def __init__(self, tables: Tables, laws: Laws, trace: Trace, gateways: Mapping[int, GatewayBook]) -> None:
        """`gateways`: by source."""
        self._tables = tables
        self._laws = laws
        self._trace = trace
        self.gateways = gateways
        self._synced: dict[tuple[str, int, int], Ranges] = {}
        """By topic, source and epoch: records that JetStream will not lose."""
        self._ids: set[bytes] = set()
        self._outputs: dict[int, Unsent] = {}
        """Kept by hops, not forgotten yet."""
        self._commits = 0
        for source_id, book in gateways.items():
            book.has = lambda epoch, first, end, source_id=source_id: self.done(RECEIVER, source_id, epoch).covers(
                first, end
            )
            book.knows_of = lambda gap, source_id=source_id: self.knows_of(source_id, gap)

    def done(self, hop: str, source_id: int, epoch: int) -> Ranges:
        progress = self._tables.progress.get((hop, source_id, epoch))
        return Ranges() if progress is None else progress.done

    def has(self, source_id: int, epoch: int, seq: int) -> bool:
        """Whether the record came: where the receiver crashed before its commit, the processor tells."""
        return any(seq in self.done(hop, source_id, epoch) for hop in (RECEIVER, PROCESSOR))

    def knows_of(self, source_id: int, gap: Gap) -> bool:
        """Whether the loss is recorded; or the records came, and it is none."""
        if gap.kind is GapKind.TAIL:
            held = self._tables.gaps.get(source_id, {}).values()
            return any((one.epoch, one.first_seq, one.kind) == (gap.epoch, gap.first_seq, gap.kind) for one in held)
        known = Ranges(part for hop in (GAP, RECEIVER, PROCESSOR) for part in self.done(hop, source_id, gap.epoch))
        return known.covers(gap.first_seq, gap.end_seq)

    def on_synced(self, topic: str, data: bytes) -> None:
        if topic == DEFAULT_PROCESSOR:
            for consignment in decode_shipment(data):
                head = read_head(consignment.block)
                self._sync(topic, consignment.source_id, head.epoch, head.first_seq, head.end_seq)
        else:
            for run in decode_messages(data).runs:
                self._sync(topic, run.source_id, run.epoch, run.first_seq, run.first_seq + run.count)

    def _sync(self, topic: str, source_id: int, epoch: int, first: int, end: int) -> None:
        self._synced.setdefault((topic, source_id, epoch), Ranges()).add(first, end)

    def on_commit(self, tx: MemoryTransaction) -> None:
        for hop, settlement in tx.settled:
            if settlement.done:
                self._trace.add("database", f"{hop} has", f"{settlement.epoch:x}", list(settlement.done))
            topic = PUBLISHES.get(hop)
            if topic is None or settlement.counts["dead_records"]:
                continue
            safe = Ranges(self._synced.get((topic, settlement.source_id, settlement.epoch), Ranges()))
            for run in _kept(tx, topic):
                if (run.source_id, run.epoch) == (settlement.source_id, settlement.epoch):
                    safe.add(run.first_seq, run.first_seq + run.count)
            for first, end in settlement.done:
                if not safe.covers(first, end):
                    self._laws.broken(
                        "recorded means synced by JetStream, or kept to be sent",
                        f"{hop} {settlement.epoch:x} [{first}, {end})",
                    )
        self._check_forgotten(tx)
        self._check_unknown(tx)
        for (_, _, message_id), row in tx.rows.items():
            if message_id in self._ids:
                self._laws.broken("no id twice", f"{message_id.hex()}: {row.data!r}")
            self._ids.add(message_id)
        self._commits += 1
        if self._commits % ACCOUNT_EVERY == 0:
            self.check_accounts()

    def check_accounts(self) -> list[SourceAccount]:
        accounts = [self._account(source_id) for source_id in self.gateways]
        for found in accounts:
            if not found.closed:
                self._laws.broken("accounting closes", str(found))
        return accounts

    def _account(self, source_id: int) -> SourceAccount:
        """As cloud/db/accounting.py asks PostgreSQL for it, in one moment."""
        by_hop: dict[tuple[int, str], Progress] = {
            (epoch, hop): progress
            for (hop, source, epoch), progress in self._tables.progress.items()
            if source == source_id
        }
        fates = dict.fromkeys(FATES, 0)
        for progress in by_hop.values():
            for fate, number in progress.counts.items():
                fates[fate] += number
        waiting: Counter[str] = Counter()
        for epoch in sorted({epoch for epoch, _ in by_hop}):
            received, processed, written = (_of(by_hop, epoch, hop) for hop in (RECEIVER, PROCESSOR, TRANSPONDER))
            sent = Ranges((*processed, *_of(by_hop, epoch, "inbox")))
            waiting["records_in_pipeline"] += _missing(received, processed)
            waiting["processor_ahead"] += _missing(processed, received)
            waiting["records_at_writer"] += _missing(sent, written)
        return account(
            PROJECT,
            source_id,
            "gateway",
            None,
            fates,
            records_in_pipeline=waiting["records_in_pipeline"],
            records_at_writer=waiting["records_at_writer"],
            processor_ahead=waiting["processor_ahead"],
        )

    def _check_forgotten(self, tx: MemoryTransaction) -> None:
        """Called after the commit's changes are there; what is forgotten stood in an earlier one."""
        for number, change in tx.unsent_changes.items():
            if change is not None:
                self._outputs[number] = change[1]
            elif (gone := self._outputs.pop(number, None)) is not None:
                for run in decode_messages(gone.output.data).runs:
                    synced = self._synced.get((gone.output.topic, run.source_id, run.epoch), Ranges())
                    if not synced.covers(run.first_seq, run.first_seq + run.count):
                        self._laws.broken("an output is forgotten once JetStream has it synced", f"number {number}")

    def _check_unknown(self, tx: MemoryTransaction) -> None:
        """A device that is there at the commit has had its sweep, which did not see this message."""
        for held in tx.new_unresolved:
            row = held.row
            if (held.project_id, row.network_id, row.alias_key, row.alias) in self._tables.aliases:
                self._laws.broken("unknown is who the newest registry does not know", f"{row.alias}: {row.payload!r}")

    def check_current(self) -> None:
        """Current values are the newest of history, whatever came when."""
        newest: dict[tuple[int, str], CurrentValue] = {}
        for row in self._tables.history.values():
            for attribute in ("d", "n"):
                name = (row.device_id, attribute)
                value = CurrentValue(row.event_time, row.received_time, row.id, b"")
                newest[name] = max(newest.get(name, value), value)
        for name, value in newest.items():
            held = self._tables.current.get(name)
            if held is None or (held.event_time, held.received_time, held.id) != (
                value.event_time,
                value.received_time,
                value.id,
            ):
                self._laws.broken("late data never replaces a newer current value", f"{name}: {held}, newest {value}")


def _of(by_hop: Mapping[tuple[int, str], Progress], epoch: int, hop: str) -> Ranges:
    progress = by_hop.get((epoch, hop))
    return Ranges() if progress is None else progress.done


def _missing(left: Ranges, right: Ranges) -> int:
    """Numbers of `left` that `right` does not hold."""
    return sum(end - start for first, behind in left for start, end in right.missing(first, behind))


def _kept(tx: MemoryTransaction, topic: str) -> list[Run]:
    """Records that the outputs name which this transaction keeps."""
    kept = [change[1].output for change in tx.unsent_changes.values() if change is not None]
    return [run for output in kept if output.topic == topic for run in decode_messages(output.data).runs]
