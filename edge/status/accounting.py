"""What the gateway says of itself, as one answer: where every record is, and how each part stands.

Also what commands and scripts decode (GET /accounting).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from edge.downlink import GatewayDownlink
from edge.identity import Enrolment
from edge.listeners.collector import Collector
from edge.listeners.mqtt import MqttListener
from edge.recorder import Recorder
from edge.replica import Replica
from edge.resolver import LocalResolver
from edge.sender import Sender
from edge.status.rejects import counts
from sync.bus.zeromq_hub import ZeroMqHub
from sync.link.client import LinkClient
from sync.log.log import Log


class Totals(msgspec.Struct, frozen=True):
    """Records: *logged = accepted + pending + evicted + damaged*."""

    logged: int
    accepted: int
    pending: int
    evicted: int
    damaged: int

    @property
    def is_closed(self) -> bool:
        return self.logged == self.accepted + self.pending + self.evicted + self.damaged


class EpochTotals(Totals, frozen=True):
    """One opening of the log."""

    epoch: str
    """Sixteen hexadecimal digits: JSON's numbers end at 53 bits."""


class LogFigures(msgspec.Struct, frozen=True):
    used_bytes: int
    max_bytes: int
    segments: int
    oldest_pending_ms: int | None
    """Received time of about the oldest record that the cloud does not have, Unix ms."""
    backlog_peak: int
    """The most records that were pending since there was last no backlog; 0 while there is none."""
    passed_over: int
    """Batches that were published again and were there already, since the start."""
    groups: int
    """Commits since the start."""
    trouble: str
    """Why it takes nothing at the moment; empty: it does."""


class LinkFigures(msgspec.Struct, frozen=True):
    state: str
    """up, down or connecting."""
    since_ms: int
    reason: str
    """Why it is down; empty while it is up."""
    url: str
    retry_at_ms: int
    """When the next attempt is due, while it is down."""
    failures: int
    connections: int
    round_trip_ms: float | None
    cloud_ahead_ms: int
    in_flight_bytes: int
    window_bytes: int
    credit_bytes: int
    wire_bytes_sent: int
    records_sent: int
    records_resent: int
    blocks_refused: int
    accepted_per_s: float
    """Records, lately."""
    drain_s: float | None
    """Until nothing waits, at the rate of lately; None while nothing moves."""


class ListenerFigures(msgspec.Struct, frozen=True):
    name: str
    network: str
    host: str
    port: int
    connections: int
    connections_total: int
    recorded: int
    refused: dict[str, int]
    """Records, by reason."""
    malformed: int
    auth_failures: int
    bytes_in: int
    network_known: bool
    """False: the registry is here, and does not have the network."""


class ResolverFigures(msgspec.Struct, frozen=True):
    """Since the start; records, messages."""

    records: int
    messages: int
    rejected: int
    unresolved: int
    skipped: int
    behind_bytes: int


class RegistryFigures(msgspec.Struct, frozen=True):
    revision: int
    """0: the gateway has never seen the cloud."""
    networks: int
    blueprints: int
    devices: int


class Accounting(msgspec.Struct, frozen=True):
    gateway: str
    project: str
    now_ms: int
    started_ms: int
    totals: Totals
    closed: bool
    """Whether the totals add up, and those of each epoch."""
    epochs: list[EpochTotals]
    log: LogFigures
    link: LinkFigures
    refused: dict[str, int]
    """Records that did not get into the log, by reason, since the start."""
    turned_away: dict[str, int]
    """Packets and connections that listeners refused, by reason, since the start."""
    listeners: list[ListenerFigures]
    resolver: ResolverFigures
    registry: RegistryFigures


class Parts(msgspec.Struct, frozen=True):
    """The parts of a running gateway, to be looked at."""

    enrolment: Enrolment
    started_ms: int
    wall_ms: Callable[[], int]
    link_url: str
    replica: Replica
    log: Log
    hub: ZeroMqHub
    recorder: Recorder
    collector: Collector
    listeners: Sequence[MqttListener]
    resolver: LocalResolver
    sender: Sender
    downlink: GatewayDownlink
    link: LinkClient


def accounting(parts: Parts, *, backlog_peak: int) -> Accounting:
    log = parts.log.accounting()
    totals = Totals(log.logged, log.accepted, log.pending, log.evicted, log.damaged)
    epochs = [
        EpochTotals(one.logged, one.accepted, one.pending, one.evicted, one.damaged, f"{one.epoch:016x}")
        for one in log.epochs
    ]
    registry = parts.replica.registry
    return Accounting(
        gateway=parts.enrolment.gateway_id,
        project=parts.enrolment.project_id,
        now_ms=parts.wall_ms(),
        started_ms=parts.started_ms,
        totals=totals,
        closed=totals.is_closed and all(epoch.is_closed for epoch in epochs),
        epochs=epochs,
        log=LogFigures(
            used_bytes=log.used_bytes,
            max_bytes=log.max_bytes,
            segments=log.segments,
            oldest_pending_ms=log.oldest_pending_ms,
            backlog_peak=backlog_peak,
            passed_over=log.passed_over,
            groups=log.groups,
            trouble=parts.recorder.trouble,
        ),
        link=_link(parts, log.pending),
        refused=refused_records(parts),
        turned_away=counts([listener.refusals for listener in parts.listeners]),
        listeners=[_listener(listener, parts.replica) for listener in parts.listeners],
        resolver=_resolver(parts.resolver),
        registry=RegistryFigures(
            registry.revision, len(registry.networks), len(registry.blueprints), len(registry.devices)
        ),
    )


def refused_records(parts: Parts) -> dict[str, int]:
    """The recorder counts what it refuses to anybody, the collector what it got no answer for, and what the recorder
    refused to it a second time."""
    refused = dict(parts.recorder.counts.refused)
    for code, count in parts.collector.counters.refused.items():
        refused[code] = max(refused.get(code, 0), count)
    return refused


def _link(parts: Parts, pending: int) -> LinkFigures:
    status, sent = parts.link.status, parts.sender.figures()
    return LinkFigures(
        state=status.state.value,
        since_ms=status.since_ms,
        reason=status.reason,
        url=parts.link_url,
        retry_at_ms=status.retry_at_ms,
        failures=status.failures,
        connections=status.connections,
        round_trip_ms=status.round_trip_ms,
        cloud_ahead_ms=status.cloud_ahead_ms,
        in_flight_bytes=status.in_flight_bytes,
        window_bytes=status.window_bytes,
        credit_bytes=status.credit_bytes,
        wire_bytes_sent=status.wire_bytes_sent,
        records_sent=sent.records_sent,
        records_resent=sent.records_resent,
        blocks_refused=status.blocks_refused,
        accepted_per_s=round(sent.accepted_per_s, 1),
        drain_s=parts.sender.drain_s(pending),
    )


def _listener(listener: MqttListener, replica: Replica) -> ListenerFigures:
    counters = listener.counters
    return ListenerFigures(
        name=listener.name,
        network=listener.network_id,
        host=listener.host,
        port=listener.port,
        connections=counters.connections,
        connections_total=counters.connections_total,
        recorded=counters.recorded,
        refused=counters.refused,
        malformed=counters.malformed,
        auth_failures=counters.auth_failures,
        bytes_in=counters.bytes_in,
        network_known=replica.has_network(listener.network_id),
    )


def _resolver(resolver: LocalResolver) -> ResolverFigures:
    counts = resolver.counts
    return ResolverFigures(
        counts.records, counts.messages, counts.rejected, counts.unresolved, counts.skipped, resolver.behind_bytes
    )
