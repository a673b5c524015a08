"""What the gateway says of itself, as one answer: where every record is, and how each part stands.

Also what commands and scripts decode (GET /accounting).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from edge.anchors import Anchors
from edge.commands import CommandQueue
from edge.courier import Courier
from edge.downlink import GatewayDownlink
from edge.identity import Enrolment
from edge.listeners.clock import GatewayClock
from edge.listeners.collector import Collector
from edge.listeners.listener import Listener
from edge.listeners.roster import Roster
from edge.presence import PresenceRecorder
from edge.pushed import Pushed
from edge.recorder import Recorder
from edge.reload import Reload
from edge.replica import Replica
from edge.resolver import LocalResolver
from edge.sender import Sender
from edge.status.rejects import counts
from protocols.times import CLOCK_UNSET_BEFORE_MS
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
    tails: int
    """Times that its end was no block, since it was made: never acknowledged, or damaged; nobody can tell."""
    gaps_untold: int
    """Losses that the cloud does not know of yet: ranges of records, and tails."""
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
    """Of both lanes."""
    backfill_in_flight_bytes: int
    window_bytes: int
    credit_bytes: int
    backfill_credit_bytes: int | None
    """What backfill may have of the credit: 0 is a pause; None: all of it."""
    bytes_per_s_max: int
    """The limit that is set; 0: none."""
    keeps_books: bool
    """The cloud takes anchors, gaps and standing."""
    gaps_told: int
    """Kept by the cloud since the start, each as often as it was told."""
    wire_bytes_sent: int
    records_sent: int
    backfill_records_sent: int
    """Of them, as backfill."""
    records_resent: int
    live_left: int
    """Times that the link did not keep up with what was new, which then became backfill."""
    blocks_refused: int
    accepted_per_s: float
    """Records, lately."""
    drain_s: float | None
    """Until nothing waits, at the rate of lately; None while nothing moves."""


class ClockFigures(msgspec.Struct, frozen=True):
    state: str
    """How far the wall clock is trusted: unset, restored or synchronized."""
    wall_ms: int
    """What it shows, Unix ms; `now_ms` is true time as far as it is known."""
    error_ms: int | None
    """`now_ms` is right within ± so much; None: nobody knows."""
    is_disputed: bool
    """The kernel says that its clock is synchronized, and the cloud contradicts."""
    anchor: str
    """What told the newest anchor of this boot: kernel or cloud; empty: none dates it yet."""
    anchor_ms: int
    """When it was, true time, Unix ms."""
    anchor_error_ms: int
    anchors_waiting: int
    """Anchors that the cloud is not known to have."""


class ListenerFigures(msgspec.Struct, frozen=True):
    name: str
    network: str
    kind: str
    """The section of the configuration: mqtt, tcp, …"""
    place: str
    """Where devices find it, or it finds them: an address and port, a serial port, an address of a broker."""
    port: int
    """What it listens on; 0: nothing."""
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
    trouble: str
    """What it waits for, such as an adapter that is not plugged in; empty: nothing."""


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
    clock: ClockFigures
    refused: dict[str, int]
    """Records that did not get into the log, by reason, since the start."""
    turned_away: dict[str, int]
    """Packets and connections that listeners refused, by reason, since the start."""
    listeners: list[ListenerFigures]
    resolver: ResolverFigures
    registry: RegistryFigures
    pushed: PushedFigures | None = None
    """None: nothing was."""


class PushedFigures(msgspec.Struct, frozen=True):
    """What the cloud has the gateway listen on."""

    revision: int
    """Of the configuration that came last."""
    in_force: bool
    """The listeners are pushed ones, though not the last where that is refused; otherwise they are the file's."""
    refused: str
    """Why the last one is not in force; empty: it is."""
    remedy: str


class Parts(msgspec.Struct, frozen=True):
    """The parts of a running gateway, to be looked at."""

    enrolment: Enrolment
    started_ms: int
    """By the steady clock."""
    clock: GatewayClock
    anchors: Anchors
    link_url: str
    replica: Replica
    log: Log
    hub: ZeroMqHub
    recorder: Recorder
    collector: Collector
    roster: Roster
    reload: Reload
    pushed: Pushed
    resolver: LocalResolver
    sender: Sender
    downlink: GatewayDownlink
    commands: CommandQueue
    courier: Courier
    presence: PresenceRecorder
    link: LinkClient

    @property
    def listeners(self) -> Sequence[Listener]:
        """Those that are configured at the moment."""
        return self.roster.listeners


def accounting(parts: Parts, *, backlog_peak: int) -> Accounting:
    log = parts.log.accounting()
    totals = Totals(log.logged, log.accepted, log.pending, log.evicted, log.damaged)
    epochs = [
        EpochTotals(one.logged, one.accepted, one.pending, one.evicted, one.damaged, f"{one.epoch:016x}")
        for one in log.epochs
    ]
    registry, clock = parts.replica.registry, parts.clock
    return Accounting(
        gateway=parts.enrolment.gateway_id,
        project=parts.enrolment.project_id,
        now_ms=clock.true_ms(),
        started_ms=clock.true_of_steady_ms(parts.started_ms),
        totals=totals,
        closed=totals.is_closed and all(epoch.is_closed for epoch in epochs),
        epochs=epochs,
        log=LogFigures(
            used_bytes=log.used_bytes,
            max_bytes=log.max_bytes,
            segments=log.segments,
            oldest_pending_ms=oldest_pending_ms(parts, log.oldest_pending_ms),
            backlog_peak=backlog_peak,
            passed_over=log.passed_over,
            groups=log.groups,
            tails=log.tails,
            gaps_untold=log.gaps_untold,
            trouble=parts.recorder.trouble,
        ),
        link=_link(parts, log.pending),
        clock=_clock(parts),
        refused=refused_records(parts.recorder, parts.collector),
        turned_away=counts([listener.refusals for listener in parts.listeners]),
        listeners=[_listener(listener, parts.replica) for listener in parts.listeners],
        resolver=_resolver(parts.resolver),
        registry=RegistryFigures(
            registry.revision, len(registry.networks), len(registry.blueprints), len(registry.devices)
        ),
        pushed=_pushed(parts.pushed),
    )


def _pushed(pushed: Pushed) -> PushedFigures | None:
    result = pushed.result()
    if result is None:
        return None
    return PushedFigures(result.revision, pushed.is_in_force, result.refused, result.remedy)


def summary(seen: Accounting) -> str:
    """In one line."""
    trouble = f"; THE LOG TAKES NOTHING: {seen.log.trouble}" if seen.log.trouble else ""
    return f"{seen.totals.logged:,} logged, {seen.totals.pending:,} wait, link {seen.link.state}{trouble}"


def oldest_pending_ms(parts: Parts, stamped_ms: int | None) -> int | None:
    """By true time. What was stamped by a clock that nobody had set counts from this boot on, and nothing is from the
    future."""
    if stamped_ms is None:
        return None
    now_ms = parts.clock.true_ms()
    if stamped_ms < CLOCK_UNSET_BEFORE_MS:
        stamped_ms = max(stamped_ms, now_ms - parts.clock.boot_ms())
    return min(stamped_ms, now_ms)


def refused_records(recorder: Recorder, collector: Collector) -> dict[str, int]:
    """The recorder counts what it refuses to anybody, the collector what it got no answer for, and what the recorder
    refused to it a second time."""
    refused = dict(recorder.counts.refused)
    for code, count in collector.counters.refused.items():
        refused[code] = max(refused.get(code, 0), count)
    return refused


def _link(parts: Parts, pending: int) -> LinkFigures:
    status, sent, clock = parts.link.status, parts.sender.figures(), parts.clock
    return LinkFigures(
        state=status.state.value,
        since_ms=clock.true_of_steady_ms(status.since_ms),
        reason=status.reason,
        url=parts.link_url,
        retry_at_ms=clock.true_of_steady_ms(status.retry_at_ms) if status.retry_at_ms else 0,
        failures=status.failures,
        connections=status.connections,
        round_trip_ms=status.round_trip_ms,
        cloud_ahead_ms=clock.steady_ms() + status.cloud_ahead_ms - clock.wall_ms() if status.connections else 0,
        in_flight_bytes=status.in_flight_bytes,
        backfill_in_flight_bytes=status.backfill_in_flight_bytes,
        window_bytes=status.window_bytes,
        credit_bytes=status.credit_bytes,
        backfill_credit_bytes=status.backfill_credit_bytes,
        bytes_per_s_max=status.bytes_per_s_max,
        keeps_books=status.keeps_books,
        gaps_told=status.gaps_told,
        wire_bytes_sent=status.wire_bytes_sent,
        records_sent=sent.records_sent,
        backfill_records_sent=sent.backfill_records_sent,
        records_resent=sent.records_resent,
        live_left=sent.live_left,
        blocks_refused=status.blocks_refused,
        accepted_per_s=round(sent.accepted_per_s, 1),
        drain_s=parts.sender.drain_s(pending),
    )


def _clock(parts: Parts) -> ClockFigures:
    clock, anchors = parts.clock, parts.anchors
    newest = anchors.newest
    return ClockFigures(
        state=clock.state().name.lower(),
        wall_ms=clock.wall_ms(),
        error_ms=anchors.true_error_ms(),
        is_disputed=anchors.is_disputed,
        anchor="" if newest is None else newest.origin,
        anchor_ms=0 if newest is None else newest.wall_ms,
        anchor_error_ms=0 if newest is None else newest.error_ms,
        anchors_waiting=len(anchors.unkept()),
    )


def _listener(listener: Listener, replica: Replica) -> ListenerFigures:
    counters = listener.counters
    return ListenerFigures(
        name=listener.name,
        network=listener.network_id,
        kind=listener.kind,
        place=listener.place,
        port=listener.port,
        connections=counters.connections,
        connections_total=counters.connections_total,
        recorded=counters.recorded,
        refused=counters.refused,
        malformed=counters.malformed,
        auth_failures=counters.auth_failures,
        bytes_in=counters.bytes_in,
        network_known=replica.has_network(listener.network_id),
        trouble=listener.trouble,
    )


def _resolver(resolver: LocalResolver) -> ResolverFigures:
    counts = resolver.counts
    return ResolverFigures(
        counts.records, counts.messages, counts.rejected, counts.unresolved, counts.skipped, resolver.behind_bytes
    )
