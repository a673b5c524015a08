"""The end of a world: where every record is that was ever synced."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

import msgspec

from cloud.model.gaps import FATE_OF
from protocols.messages import GapKind, Priority
from sync.ranges import Ranges
from tests.worlds.cloud import Cloud
from tests.worlds.devices import Device, Kind, Name, name_of
from tests.worlds.gateway import Gateway
from tests.worlds.gateway_book import Place, Record
from tests.worlds.laws import Laws


class _Found(msgspec.Struct):
    """Where records and messages are in the cloud."""

    history: Counter[tuple[int, int, int]]
    """Rows, by source, epoch and number of the record that carried them."""
    names: Counter[Name]
    """Rows, by message."""
    inbox: Counter[tuple[int, Name]]
    rejects: Counter[tuple[int, int, int]]


def check_ending(laws: Laws, gateways: Sequence[Gateway], cloud: Cloud, devices: Sequence[Device]) -> None:
    """To be asked once everything has arrived."""
    found = _find(cloud)
    kinds = {device.name: device.kind for device in devices}
    arrived = {(device.name, number): times for device in devices for number, times in device.arrived.items()}
    for gateway in gateways:
        _check_site(laws, gateway, cloud, found, kinds)
        _check_repeats(laws, gateway, cloud, arrived)
    for letter in cloud.store.tables.dead_letters:
        laws.broken("nothing is buried that is well", f"{letter.hop}: {letter.detail}")
    for account in cloud.book.check_accounts():
        if account.in_pipeline or account.records_in_pipeline or account.records_at_writer:
            laws.broken("accounting closes", f"JetStream is empty, and yet: {account}")
    cloud.book.check_current()


def _find(cloud: Cloud) -> _Found:
    tables = cloud.store.tables
    history: Counter[tuple[int, int, int]] = Counter()
    names: Counter[Name] = Counter()
    for row in tables.history.values():
        body = json.loads(row.data)
        history[row.record.source_id, row.record.epoch, row.record.first_seq] += 1
        names[body["d"], body["n"]] += 1
    inbox = Counter((held.row.source_id, name_of(held.row.payload)) for held in tables.inbox.values())
    rejects = Counter((each.source_id, each.epoch, each.record_seq) for each in tables.rejects.values())
    return _Found(history, names, inbox, rejects)


def _check_site(laws: Laws, gateway: Gateway, cloud: Cloud, found: _Found, kinds: dict[str, Kind]) -> None:
    source = cloud.sources[gateway.name]
    lost = _lost(laws, gateway, cloud, source)
    _check_gap_counts(laws, gateway, cloud, source)
    unresolved: Counter[Name] = Counter()
    for place, record in gateway.book.records.items():
        epoch, seq = place
        if not cloud.book.has(source, epoch, seq):
            if record.synced and not record.excused and not lost.covers(place):
                laws.broken("acknowledged ⊆ stored ∪ gaps", f"{gateway.name} {epoch:x}/{seq} {record.name}")
            continue
        if lost.names(place):
            laws.broken("what is stored is no gap", f"{gateway.name} {epoch:x}/{seq} {record.name}")
        kind = kinds.get(record.name[0], Kind.OWN)
        rows, by_name = found.history[source, epoch, seq], found.names[record.name]
        if kind is Kind.GARBLED and record.name[1] % 3 == 0:
            right = found.rejects[source, epoch, seq] + rows == 1
        elif kind is Kind.STRANGER:
            unresolved[record.name] += 1
            right = True
        elif kind is Kind.STOPPED:
            right = by_name == 0
        elif kind is Kind.KEYED:
            right = by_name == 1
        elif kind is Kind.LATE:
            right = by_name >= 1
        else:
            right = rows == 1
        if not right:
            laws.broken(
                "each record is stored once", f"{gateway.name} {epoch:x}/{seq} {record.name}: {rows}, {by_name} rows"
            )
    for name, number in unresolved.items():
        if found.inbox[source, name] != number:
            laws.broken("unknown is not lost", f"{name}: {number} records, {found.inbox[source, name]} in the inbox")


def _check_repeats(laws: Laws, gateway: Gateway, cloud: Cloud, arrived: dict[Name, int]) -> None:
    """No message stands in more records than it was sent times, in the log or in the cloud."""
    places = {name: set(known) for name, known in gateway.book.places.items()}
    source = cloud.sources[gateway.name]
    for place, record in gateway.book.records.items():
        if not record.synced and cloud.book.has(source, *place):
            places.setdefault(record.name, set()).add(place)
    for name, known in places.items():
        records = [gateway.book.records[place] for place in known]
        if any(record.excused or record.harmed or record.unsure for record in records):
            continue  # what knew its key is gone
        if len(known) > arrived.get(name, 1):
            laws.broken("what is sent once is recorded once", f"{name} at {sorted(known)}")


class _Lost:
    """What a site's gaps say."""

    def __init__(self) -> None:
        self._ranges: dict[int, Ranges] = {}
        self._tails: dict[int, int] = {}

    def add(self, epoch: int, first: int, end: int) -> None:
        self._ranges.setdefault(epoch, Ranges()).add(first, end)

    def add_tail(self, epoch: int, first: int) -> None:
        self._tails[epoch] = min(first, self._tails.get(epoch, first))

    def names(self, place: Place) -> bool:
        return place[1] in self._ranges.get(place[0], Ranges())

    def covers(self, place: Place) -> bool:
        """A tail may have held any record from its place on."""
        tail = self._tails.get(place[0])
        return self.names(place) or (tail is not None and place[1] >= tail)


def _lost(laws: Laws, gateway: Gateway, cloud: Cloud, source: int) -> _Lost:
    lost = _Lost()
    for gap in cloud.store.tables.gaps.get(source, {}).values():
        if gap.kind is GapKind.TAIL:
            lost.add_tail(gap.epoch, gap.first_seq)
            continue
        lost.add(gap.epoch, gap.first_seq, gap.end_seq)
        for seq in range(gap.first_seq, gap.end_seq):
            record = gateway.book.records.get((gap.epoch, seq))
            _check_loss(laws, gateway, gap.kind, (gap.epoch, seq), record)
    return lost


def _check_loss(laws: Laws, gateway: Gateway, kind: GapKind, place: Place, record: Record | None) -> None:
    where = f"{gateway.name} {place[0]:x}/{place[1]}"
    if record is None:
        laws.broken("only what was there is lost", f"{where} was never written")
    elif kind is GapKind.EVICTED and record.priority is Priority.ALARM:
        laws.broken("alarms are never evicted", f"{where} {record.name}")
    elif kind is GapKind.DAMAGED and not record.harmed and not gateway.book.state_harmed:
        laws.broken("only what was harmed is damaged", f"{where} {record.name}")


def _check_gap_counts(laws: Laws, gateway: Gateway, cloud: Cloud, source: int) -> None:
    """What is counted as lost is what the gaps name, once."""
    named: Counter[str] = Counter()
    for gap in cloud.store.tables.gaps.get(source, {}).values():
        named[FATE_OF[gap.kind]] += 1 if gap.kind is GapKind.TAIL else gap.records
    counted: Counter[str] = Counter()
    for (_, of_source, _), progress in cloud.store.tables.progress.items():
        if of_source == source:
            counted.update({fate: progress.counts[fate] for fate in FATE_OF.values()})
    if +named != +counted:
        laws.broken("a loss is counted once", f"{gateway.name}: gaps {dict(named)}, counted {dict(counted)}")
