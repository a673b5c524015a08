"""The messages: what travels, one at a time. On hot paths they travel as columns instead (batch.py)."""

from __future__ import annotations

import enum
from typing import Any

import msgspec


class Priority(enum.IntEnum):
    """What is evicted first when a log is full: the lower, the sooner. Alarms never are."""

    TELEMETRY = 0
    EVENT = 1
    ALARM = 2


class ClockState(enum.IntEnum):
    """How far the wall clock of a gateway can be trusted."""

    UNSET = 0
    RESTORED = 1
    SYNCHRONIZED = 2


class Lane(enum.StrEnum):
    """Live goes first; backfill follows beside it with a guaranteed share."""

    LIVE = "live"
    BACKFILL = "backfill"


class Anchor(msgspec.Struct, frozen=True, array_like=True, order=True):
    """What one moment of a boot clock was in true time. Once durable it never changes: event times derive from it."""

    boot: int
    """The boot, as in Clock."""
    boot_ms: int
    """The boot clock then, milliseconds."""
    wall_ms: int
    """True time then, Unix milliseconds."""
    error_ms: int
    """True time lay within wall_ms ± error_ms."""
    origin: str
    """What told it: `kernel` (NTP, PTP, a GPS keeps the clock), `cloud` (the link's greeting), or `boots` (the boots
    before and after one that nobody told the time)."""


class GapKind(enum.StrEnum):
    """Why records of a gateway's log will never come."""

    EVICTED = "evicted"
    """The log was full, and they were the oldest of the lowest priority."""
    DAMAGED = "damaged"
    """The disk does not give them back."""
    TAIL = "tail"
    """Bytes at the end of a log that are no block: a write that was never acknowledged, or the last records, damaged;
    nobody can tell. Of unknown length, so it counts no records."""


class Gap(msgspec.Struct, frozen=True, array_like=True, order=True):
    """The durable record of a loss: records [first_seq, end_seq) of an epoch."""

    epoch: int
    first_seq: int
    end_seq: int
    """Equal to `first_seq` for a tail."""
    kind: GapKind
    oldest_ms: int
    newest_ms: int
    """Received times of the records, about, Unix milliseconds; 0: not known."""
    noticed_ms: int
    """When the gap came to be, by the gateway's wall clock, Unix milliseconds."""
    size_bytes: int = 0
    """Of a tail: bytes behind the last whole block that are not zero."""

    @property
    def records(self) -> int:
        return self.end_seq - self.first_seq


class Clock(msgspec.Struct, frozen=True, array_like=True):
    """The clock that stamped a batch. Boot clock of a record = its received time − `offset_ms`."""

    boot: int
    """Random, 63 bits, one for each boot of the machine."""
    offset_ms: int
    """Wall clock minus boot clock, Unix milliseconds at boot clock zero."""
    state: ClockState


class Origin(msgspec.Struct, frozen=True, array_like=True):
    """What many records of one device have in common: where a record came from. A batch holds each once."""

    network_id: str
    alias_key: str
    alias: str
    """Empty where topic or payload give it."""
    topic: str
    codec: str
    """A hint by the listener; empty: the network's codec."""
    listener: str
    priority: Priority = Priority.TELEMETRY


class Record(msgspec.Struct, frozen=True):
    """What a listener received: the unit of log and link."""

    origin: Origin
    payload: bytes
    received_time: int
    """Unix milliseconds by the gateway's wall clock, raw."""
    clock: Clock
    metadata: bytes = b""
    """What the protocol said beside the payload: a MessagePack map of text to text, or nothing."""


class InboundDataEventMsg(msgspec.Struct, frozen=True):
    """A record, decoded: what a device said, under the name that its network knows it by."""

    id: str
    network_id: str
    alias_key: str
    alias: str
    time: int | None
    """The device's own, Unix milliseconds, raw; None where it gave none."""
    received_time: int
    history_only: bool
    data: dict[str, Any]


Route = dict[str, list[str]]
"""Event type to the topics that a message visits, in order."""

DEFAULT_ROUTE: Route = {"device_data_event": ["writer"]}


class DeviceDataEventMsg(msgspec.Struct, frozen=True):
    """An InboundDataEventMsg whose device is known."""

    id: str
    network_id: str
    alias_key: str
    alias: str
    time: int | None
    received_time: int
    history_only: bool
    data: dict[str, Any]
    device_id: int
    blueprint_id: str
    system_id: str
    project_id: str
    event_time: int
    """Unix milliseconds; what partitions, queries and *latest* go by (times.py)."""
    route: Route
    revision: int
    """Of the registry that resolved it."""


class CommandState(enum.StrEnum):
    PENDING = "pending"
    SENT = "sent"
    DELIVERED = "delivered"
    ACKNOWLEDGED = "acknowledged"
    FAILED = "failed"
    EXPIRED = "expired"


class Command(msgspec.Struct, frozen=True):
    """A downlink request. `deadline` is Unix milliseconds by the cloud's clock."""

    id: str
    device_id: int
    name: str
    payload: bytes
    deadline: int
    state: CommandState = CommandState.PENDING
