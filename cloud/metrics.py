"""The accounting, the gateways' backlogs and what waits in the topics, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric

from cloud.db import accounting, standings
from cloud.db.database import Database
from cloud.model.accounting import SourceAccount
from cloud.model.standing import GatewayStanding
from sync.bus.jetstream_streams import TopicStats

READ_EVERY_MS: Final = 5000
"""The accounting is read at most this often, however many ask: it looks at every epoch of every source."""
RECORDS: Final = {
    "accepted": "accepted",
    "decoded": "decoded_records",
    "rejected": "rejected_records",
    "dead": "dead_records",
    "in_pipeline": "records_in_pipeline",
    "evicted": "evicted",
    "damaged": "damaged",
}
"""The label `fate` to the account's field."""
MESSAGES: Final = ("decoded", "stored", "repeated", "unresolved", "rejected", "stopped", "dead", "in_pipeline")


class PipelineMetrics:
    """`topics`: as they were seen last; empty where this process does not look at them."""

    def __init__(
        self, database: Database, topics: Callable[[], Sequence[TopicStats]], wall_ms: Callable[[], int]
    ) -> None:
        self._database = database
        self._topics = topics
        self._wall_ms = wall_ms
        self._due_ms = 0
        self._accounts: list[SourceAccount] = []
        self._gateways: list[GatewayStanding] = []

    async def read(self) -> None:
        """Before `collect`. Raises DatabaseError."""
        now_ms = self._wall_ms()
        if now_ms < self._due_ms:
            return
        async with self._database.connection() as conn:
            self._accounts = await accounting.by_source(conn, None)
            self._gateways = await standings.of_project(conn, None)
        self._due_ms = now_ms + READ_EVERY_MS

    def collect(self) -> Iterator[Metric]:
        names = ("project", "source")
        records = GaugeMetricFamily("tidegate_records", "records of a source by their fate", labels=(*names, "fate"))
        messages = GaugeMetricFamily("tidegate_messages", "messages of a source by their fate", labels=(*names, "fate"))
        tails = GaugeMetricFamily("tidegate_log_tails", "unreadable ends of a gateway's logs", labels=names)
        closed = GaugeMetricFamily("tidegate_accounting_closed", "1: both equations of the source hold", labels=names)
        for account in self._accounts:
            source = [account.project_id, account.gateway_id or account.kind]
            for fate, field in RECORDS.items():
                records.add_metric([*source, fate], getattr(account, field))
            for fate in MESSAGES:
                messages.add_metric([*source, fate], getattr(account, fate))
            tails.add_metric(source, account.tails)
            closed.add_metric(source, account.closed)
        yield from (records, messages, tails, closed)
        yield from self._of_gateways()
        yield from self._of_topics()

    def _of_gateways(self) -> Iterator[Metric]:
        names = ("project", "gateway")
        pending = GaugeMetricFamily(
            "tidegate_gateway_pending_records", "in the gateway's log, as it says", labels=names
        )
        age = GaugeMetricFamily("tidegate_gateway_backlog_age_seconds", "of the oldest of these", labels=names)
        behind = GaugeMetricFamily(
            "tidegate_gateway_complete_age_seconds",
            "since when not all of the gateway's is known to be here",
            labels=names,
        )
        for gateway in self._gateways:
            name = [gateway.project_id, gateway.gateway_id]
            if gateway.standing is not None:
                pending.add_metric(name, gateway.pending)
                age.add_metric(name, gateway.backlog_age_ms / 1000)
            if gateway.complete_until is not None:
                behind.add_metric(name, max(0, self._wall_ms() - gateway.complete_until) / 1000)
        yield from (pending, age, behind)

    def _of_topics(self) -> Iterator[Metric]:
        size = GaugeMetricFamily(
            "tidegate_topic_bytes", "in the topic, not dealt with by every channel", labels=["topic"]
        )
        waiting = GaugeMetricFamily(
            "tidegate_topic_waiting_batches",
            "not acknowledged by the channel's readers",
            labels=["topic", "channel", "lane"],
        )
        for topic in self._topics():
            size.add_metric([topic.topic], topic.bytes)
            for channel in topic.channels:
                waiting.add_metric(
                    [topic.topic, channel.channel, channel.lane.value], channel.waiting + channel.unanswered
                )
        yield from (size, waiting)
