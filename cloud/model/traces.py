"""What is stored of a message: the facts that its place is told from (where.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from cloud.model.standing import GatewayStanding
from protocols.ids import RecordName
from protocols.messages import Gap, Route
from sync.link.frames import RefusedSample


class Source(msgspec.Struct, frozen=True):
    project_id: str
    kind: str
    gateway_id: str | None

    def __str__(self) -> str:
        return f"gateway {self.gateway_id}" if self.gateway_id else "HTTP ingest"


class Row(msgspec.Struct, frozen=True):
    """Of history."""

    device_id: int
    id: bytes
    record: bytes | None
    event_time: int
    time: int | None
    received_time: int
    flags: int
    time_error_ms: int | None


class Waiting(msgspec.Struct, frozen=True):
    """Of the inbox."""

    network_id: str
    alias_key: str
    alias: str
    id: bytes
    event_time: int
    received_time: int
    numbered: bool
    device_id: int | None
    """Who has the alias by now."""


class Rejected(msgspec.Struct, frozen=True):
    seq: int
    network_id: str
    alias_key: str
    alias: str
    code: str
    detail: str
    received_time: int


class Dead(msgspec.Struct, frozen=True):
    seq: int
    hop: str
    detail: str
    created_ms: int


class RecordFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Of one record, and of one message in it where the id names one."""

    name: RecordName
    source: Source | None
    """None: no hop has seen the epoch, and no gateway names it."""
    received: bool = False
    processed: bool = False
    written: bool = False
    """By receiver, processor, transponder."""
    rows: Sequence[Row] = ()
    waiting: Sequence[Waiting] = ()
    rejected: Sequence[Rejected] = ()
    dead: Sequence[Dead] = ()
    gap: Gap | None = None
    fates: Mapping[str, int] = {}
    """Of the epoch: what of it was `stopped`, `repeated`."""
    replayed: int = 0
    """Messages of the source that have left the inbox and are not written."""
    gateway: GatewayStanding | None = None


class KeyedFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Of a message whose id derives from its message key."""

    rows: Sequence[Row] = ()
    waiting: Sequence[Waiting] = ()
    taken_ms: int | None = None
    """The event time that its key was taken with; None: it was not."""


class DeviceFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Of what a name said about a time."""

    name: tuple[str, str, str]
    """Network, alias key, alias."""
    time_ms: int
    device_id: int | None
    """None: nobody is called so."""
    network_known: bool = True
    """False: the project has no such network."""
    route: Route | None = None
    """The device's, or its blueprint's; None: the common one."""
    rows: Sequence[Row] = ()
    waiting: Sequence[Waiting] = ()
    rejected: Sequence[Rejected] = ()
    refused: Sequence[tuple[str, RefusedSample]] = ()
    """With the gateway's id."""
    gaps: Sequence[tuple[str, Gap]] = ()
    """Of records that were received about that time, with the gateway's id."""
    gateways: Sequence[GatewayStanding] = ()
    """Those that carry its messages; all of the project, where none is known to."""
    in_pipeline: int = 0
    """Records of these gateways that are accepted and not written."""
