"""/metrics: the parts' own counters, read when somebody asks, as Prometheus wants them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from edge.status.accounting import ListenerFigures
from edge.status.view import GatewayView
from sync.bus.channel import ChannelState

CONTENT_TYPE = CONTENT_TYPE_LATEST
_PREFIX = "tidegate_edge"


class Metrics:
    """Imported with the first request, as its library takes 2 MB that many gateways never need."""

    def __init__(self, view: GatewayView) -> None:
        self._view = view
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """For prometheus_client. Totals of the log go back to when it was made, others to the start."""
        seen = self._view.accounting()
        totals = seen.totals
        for name in ("logged", "accepted", "evicted", "damaged"):
            yield _counter(f"records_{name}", f"Records {name}, of the log since it was made", getattr(totals, name))
        yield _gauge("records_pending", "Records that the cloud does not have yet", totals.pending)
        log, link, resolver = seen.log, seen.link, seen.resolver
        yield _gauge("log_used_bytes", "All files of the log", log.used_bytes)
        yield _counter("log_tails", "Times that the log's end was no block, since it was made", log.tails)
        yield _gauge("gaps_untold", "Losses that the cloud does not know of yet", log.gaps_untold)
        yield _gauge("log_max_bytes", "The log's bound", log.max_bytes)
        oldest_ms = seen.now_ms if log.oldest_pending_ms is None else log.oldest_pending_ms
        yield _gauge("backlog_age_seconds", "Age of the oldest pending record", max(0, seen.now_ms - oldest_ms) / 1000)
        yield _counter("log_commits", "Group commits, each one synced write", log.groups)
        yield _counter("batches_passed_over", "Batches published again that the log had", log.passed_over)
        yield _counters("records_refused", "Records that did not get into the log", "reason", seen.refused)
        yield _counters("turned_away", "Packets and connections refused by listeners", "reason", seen.turned_away)
        yield _gauge("link_up", "1 while the link to the cloud is up", int(link.state == "up"))
        yield _counter("link_connections", "Times that the link came up", link.connections)
        yield _counter("link_wire_bytes", "Bytes sent to the cloud", link.wire_bytes_sent)
        yield _counter("link_records_sent", "Records sent, each as often as it was", link.records_sent)
        yield _counter("link_backfill_records_sent", "Of them, as backfill", link.backfill_records_sent)
        yield _counter("link_live_left", "Times that the link did not keep up with what was new", link.live_left)
        yield _counter("link_gaps_told", "Losses that the cloud was told of", link.gaps_told)
        in_flight = GaugeMetricFamily(f"{_PREFIX}_link_in_flight_bytes", "Without an answer yet", labels=["lane"])
        in_flight.add_metric(["live"], link.in_flight_bytes - link.backfill_in_flight_bytes)
        in_flight.add_metric(["backfill"], link.backfill_in_flight_bytes)
        yield in_flight
        yield _gauge("link_credit_bytes", "What the cloud allows in flight", link.credit_bytes)
        backfill = link.credit_bytes if link.backfill_credit_bytes is None else link.backfill_credit_bytes
        yield _gauge("link_backfill_credit_bytes", "Of it, what backfill may have", backfill)
        if link.round_trip_ms is not None:
            yield _gauge("link_round_trip_seconds", "To the cloud and back", link.round_trip_ms / 1000)
        yield _counter("resolver_records", "Records decoded and resolved here", resolver.records)
        yield _counter("resolver_messages", "Messages they gave", resolver.messages)
        yield _counter("resolver_rejected", "Records that did not decode", resolver.rejected)
        yield _counter("resolver_unresolved", "Messages of unknown devices", resolver.unresolved)
        yield _counter("resolver_skipped", "Records that the local resolver left to the cloud", resolver.skipped)
        yield _gauge("registry_revision", "Of the replica", seen.registry.revision)
        yield from _of_listeners(seen.listeners)
        yield from _of_bus(self._view.parts.hub.channels())


def _of_listeners(listeners: Sequence[ListenerFigures]) -> Iterator[Metric]:
    open_now = GaugeMetricFamily(f"{_PREFIX}_connections", "Devices connected", labels=["listener"])
    opened = CounterMetricFamily(f"{_PREFIX}_connections_opened", "Connections", labels=["listener"])
    recorded = CounterMetricFamily(f"{_PREFIX}_records_recorded", "Records on disk", labels=["listener"])
    received = CounterMetricFamily(f"{_PREFIX}_received_bytes", "Bytes received", labels=["listener"])
    for one in listeners:
        open_now.add_metric([one.name], one.connections)
        opened.add_metric([one.name], one.connections_total)
        recorded.add_metric([one.name], one.recorded)
        received.add_metric([one.name], one.bytes_in)
    yield from (open_now, opened, recorded, received)


def _of_bus(channels: Sequence[ChannelState]) -> Iterator[Metric]:
    waiting = GaugeMetricFamily(f"{_PREFIX}_bus_waiting", "Batches that wait", labels=["topic", "channel"])
    missed = CounterMetricFamily(f"{_PREFIX}_bus_missed", "Batches lost to readers", labels=["topic", "channel"])
    for channel in channels:
        waiting.add_metric([channel.topic, channel.channel], channel.waiting + channel.unanswered)
        missed.add_metric([channel.topic, channel.channel], channel.missed)
    yield from (waiting, missed)


def _counter(name: str, documentation: str, value: float) -> Metric:
    return CounterMetricFamily(f"{_PREFIX}_{name}", documentation, value)


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{_PREFIX}_{name}", documentation, value)


def _counters(name: str, documentation: str, label: str, values: dict[str, int]) -> Metric:
    family = CounterMetricFamily(f"{_PREFIX}_{name}", documentation, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family
