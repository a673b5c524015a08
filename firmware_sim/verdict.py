"""Compares what the ledger holds of a device with what the cloud has of it. Pure.

*acknowledged ⊆ stored ∪ rejected ∪ unresolved ∪ gaps*; what is in none of them is missing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final

import msgspec

from firmware_sim.ledger import BootTally, LedgerDevice

NAMED_MAX: Final = 5
"""Messages named one by one for each kind of fault: enough to look for the cause."""
_ROWS_MAX: Final = 255

AnyMark = tuple[object, object]
"""Boot and seq as somebody's payload has them, whatever they are."""
InGaps = Mapping[int, Collection[int]]
"""Seqs by boot."""


class Verdict(msgspec.Struct, frozen=True):
    """What became of the messages of one device (or of many, added up)."""

    name: str
    network: str
    made: int = 0
    packets: int = 0
    """Sendings, those of the same message again included; of a polled device, readings."""
    sent: int = 0
    """Messages sent at least once."""
    acknowledged: int = 0
    stored: int = 0
    """Messages found in history."""
    missing: int = 0
    """Acknowledged, and in none of stored, rejected, unresolved and gaps. Never happens."""
    doubled: int = 0
    """Rows too many: with a message key, beyond one a message; without, beyond one a sending. Never happens."""
    unacknowledged: int = 0
    """Sent, and neither acknowledged nor dropped by the device: stored or not, both are right."""
    unsent: int = 0
    """Still in the device's memory, or lost with it."""
    dropped: int = 0
    """By the device: its buffer was full, or it lost power."""
    other_rows: int = 0
    """In history, but not from the ledger: sent by hand, say."""
    malformed: int = 0
    """Of what was made: payloads that nobody can read."""
    rejected: int = 0
    """Messages found among the rejects, malformed as a rule."""
    unresolved: int = 0
    """Messages that wait in the inbox until their device exists."""
    unpromised: int = 0
    """Sent by a device that learns of no acknowledgement (QoS 0, polled): stored or not, both are right."""
    unpromised_stored: int = 0
    """Of those, what is stored all the same."""
    in_gaps: int = 0
    """Acknowledged, and by count and time within a gap that the gateway has told of: lost, and accounted for."""
    faults: tuple[str, ...] = ()
    """The first few of what never happens, in words."""

    @property
    def is_right(self) -> bool:
        return not self.missing and not self.doubled


class Evidence:
    """What was found of one device's messages; asked for a verdict at the end."""

    def __init__(self, device: LedgerDevice, tallies: Mapping[int, BootTally]) -> None:
        """`tallies` by boot."""
        self.device = device
        self._tallies = tallies
        self._stored = self._nothing()
        self._rejected = self._nothing()
        self._unresolved = self._nothing()
        self._other_rows = 0

    @property
    def is_to_be_rejected(self) -> bool:
        """Something that was sent cannot have been stored."""
        return any(1 in tally.malformed for tally in self._tallies.values())

    def add_rows(self, rows: Iterable[AnyMark]) -> None:
        """Of the device's history."""
        self._other_rows += self._add(self._stored, rows)

    def add_rejects(self, rejects: Iterable[AnyMark]) -> None:
        self._add(self._rejected, rejects)

    def add_unresolved(self, messages: Iterable[AnyMark]) -> None:
        self._add(self._unresolved, messages)

    def missing(self) -> Iterator[tuple[int, int]]:
        """Boot and seq of each acknowledged message that nothing was found of."""
        for boot, tally in self._tallies.items():
            found = [self._stored[boot], self._rejected[boot], self._unresolved[boot]]
            for seq in range(1, len(tally)):
                if tally.acknowledged[seq] and not any(counts[seq] for counts in found):
                    yield boot, seq

    def verdict(self, in_gaps: InGaps) -> Verdict:
        """`in_gaps`: which of the missing are within gaps."""
        name, network = self.device.name, self.device.network
        parts = [self._judge(boot, in_gaps.get(boot, ())) for boot in sorted(self._tallies)]
        return add_up(name, network, [*parts, Verdict(name, network, other_rows=self._other_rows)])

    def _nothing(self) -> dict[int, bytearray]:
        return {boot: bytearray(len(tally)) for boot, tally in self._tallies.items()}

    def _add(self, found: dict[int, bytearray], marks: Iterable[AnyMark]) -> int:
        """How many are none of ours."""
        other = 0
        for boot, seq in marks:
            counts = found.get(boot) if type(boot) is int else None
            if counts is None or type(seq) is not int or not 1 <= seq < len(counts):
                other += 1
            elif counts[seq] < _ROWS_MAX:
                counts[seq] += 1
        return other

    def _judge(self, boot: int, in_gaps: Collection[int]) -> Verdict:
        device, tally = self.device, self._tallies[boot]
        stored, rejected, unresolved = self._stored[boot], self._rejected[boot], self._unresolved[boot]
        missing = doubled = unacknowledged = unsent = sent = explained = 0
        unpromised = unpromised_stored = 0
        faults: list[str] = []
        for seq in range(1, len(tally)):
            sends, rows, acknowledged = tally.sends[seq], stored[seq], tally.acknowledged[seq]
            sent += sends > 0
            if acknowledged and not rows and not rejected[seq] and not unresolved[seq]:
                if seq in in_gaps:
                    explained += 1
                else:
                    missing += 1
                    where = "not among the rejects" if tally.malformed[seq] else "not stored"
                    faults.append(f"{device.name} boot {boot} seq {seq}: acknowledged, and {where}")
            elif not acknowledged and not tally.dropped[seq]:
                unacknowledged += sends > 0 and device.is_answered
                unsent += not sends
            if sends and not device.is_answered:
                unpromised += 1
                unpromised_stored += rows > 0
            surplus = _surplus(device, tally, seq, rows, rejected[seq])
            if surplus > 0:
                doubled += surplus
                also = f", rejected {rejected[seq]} times" if rejected[seq] else ""
                faults.append(f"{device.name} boot {boot} seq {seq}: stored {rows} times{also}, sent {sends} times")
            if len(faults) > NAMED_MAX:
                del faults[NAMED_MAX:]
        return Verdict(
            device.name,
            device.network,
            made=max(len(tally) - 1, 0),
            packets=sum(tally.sends),
            sent=sent,
            acknowledged=sum(tally.acknowledged),
            stored=sum(map(bool, stored[1:])),
            missing=missing,
            doubled=doubled,
            unacknowledged=unacknowledged,
            unsent=unsent,
            dropped=sum(tally.dropped),
            malformed=sum(tally.malformed),
            rejected=sum(map(bool, rejected[1:])),
            unresolved=sum(map(bool, unresolved[1:])),
            unpromised=unpromised,
            unpromised_stored=unpromised_stored,
            in_gaps=explained,
            faults=tuple(faults),
        )


def judge(device: LedgerDevice, tallies: Mapping[int, BootTally], rows: Iterable[AnyMark]) -> Verdict:
    """By what is stored alone."""
    evidence = Evidence(device, tallies)
    evidence.add_rows(rows)
    return evidence.verdict({})


def add_up(name: str, network: str, parts: Iterable[Verdict]) -> Verdict:
    """The sum of many; of their faults the first few."""
    numbers = dict.fromkeys(_NUMBERS, 0)
    faults: list[str] = []
    for part in parts:
        for number in _NUMBERS:
            numbers[number] += getattr(part, number)
        faults += part.faults
    return Verdict(name, network, **numbers, faults=tuple(faults[:NAMED_MAX]))


_NUMBERS: Final = tuple(field for field in Verdict.__struct_fields__ if field not in ("name", "network", "faults"))


def _surplus(device: LedgerDevice, tally: BootTally, seq: int, rows: int, rejects: int) -> int:
    """Rows and rejects too many. What does not decode has no message key: each sending of it may be rejected."""
    surplus = rows - 1 if device.keyed else 0 if tally.may_have_rows(seq, rows) else rows - tally.sends[seq]
    too_many = 0 if tally.may_have_rows(seq, rejects) else rejects - tally.sends[seq]
    return max(surplus, 0) + too_many
