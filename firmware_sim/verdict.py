"""Compares what the ledger holds of a device with what the cloud has stored. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from firmware_sim.ledger import BootTally, LedgerDevice

NAMED_MAX: Final = 5
"""Messages named one by one for each kind of fault: enough to look for the cause."""
_ROWS_MAX: Final = 255


class Verdict(msgspec.Struct, frozen=True):
    """What became of the messages of one device (or of many, added up)."""

    name: str
    network: str
    made: int = 0
    packets: int = 0
    """PUBLISH packets sent, resends included."""
    sent: int = 0
    """Messages sent at least once."""
    acknowledged: int = 0
    stored: int = 0
    """Messages found in history."""
    missing: int = 0
    """Acknowledged, and not stored. Never happens."""
    doubled: int = 0
    """Rows too many: with a message key, beyond one a message; without, beyond one a PUBLISH packet. Never happens."""
    unacknowledged: int = 0
    """Sent, and neither acknowledged nor dropped by the device: stored or not, both are right."""
    unsent: int = 0
    """Still in the device's memory, or lost with it."""
    dropped: int = 0
    """By the device: its buffer was full, or it lost power."""
    other_rows: int = 0
    """In history, but not from the ledger: sent by hand, say."""
    faults: tuple[str, ...] = ()
    """The first few of what never happens, in words."""

    @property
    def is_right(self) -> bool:
        return not self.missing and not self.doubled


def judge(device: LedgerDevice, tallies: Mapping[int, BootTally], rows: Iterable[tuple[object, object]]) -> Verdict:
    """`tallies` by boot; `rows`: boot and seq of each row of the device's history, whatever they are."""
    stored = {boot: bytearray(len(tally)) for boot, tally in tallies.items()}
    other = 0
    for boot, seq in rows:
        counts = stored.get(boot) if type(boot) is int else None
        if counts is None or type(seq) is not int or not 1 <= seq < len(counts):
            other += 1
        elif counts[seq] < _ROWS_MAX:
            counts[seq] += 1
    parts = [_judge_boot(device, boot, tallies[boot], stored[boot]) for boot in sorted(tallies)]
    return add_up(device.name, device.network, [*parts, Verdict(device.name, device.network, other_rows=other)])


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


def _judge_boot(device: LedgerDevice, boot: int, tally: BootTally, stored: bytearray) -> Verdict:
    missing = doubled = unacknowledged = unsent = sent = 0
    faults: list[str] = []
    for seq in range(1, len(tally)):
        sends, rows, acknowledged = tally.sends[seq], stored[seq], tally.acknowledged[seq]
        sent += sends > 0
        if acknowledged and not rows:
            missing += 1
            faults.append(f"{device.name} boot {boot} seq {seq}: acknowledged, and not stored")
        elif not acknowledged and not tally.dropped[seq]:
            unacknowledged += sends > 0
            unsent += not sends
        surplus = rows - 1 if device.keyed else 0 if tally.may_have_rows(seq, rows) else rows - sends
        if surplus > 0:
            doubled += surplus
            faults.append(f"{device.name} boot {boot} seq {seq}: stored {rows} times, sent {sends} times")
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
        faults=tuple(faults),
    )
