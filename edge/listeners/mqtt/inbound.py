"""What a device publishes on one connection: into the collector, and the answers back."""

from __future__ import annotations

from typing import Final, Protocol

from edge.listeners.collector import Collector
from edge.listeners.filling import Owed
from edge.listeners.listener import ListenerCounters
from edge.listeners.mqtt.exactly_once import ExactlyOnce
from edge.listeners.mqtt.metadata import correlation_of, metadata_of
from edge.listeners.mqtt.network import MqttNetwork
from edge.listeners.mqtt.outgoing import RESPONSE_SPACE
from edge.listeners.mqtt.routing import Routing
from protocols.messages import Origin, Priority
from protocols.mqtt.incoming import Run
from protocols.mqtt.packets import encode_acks
from protocols.mqtt.properties import NO_PROPERTIES
from protocols.mqtt.session import Session
from protocols.mqtt.wire import PUBACK, PUBCOMP, PUBREC

CONNECTION_RECORDS_MAX: Final = 1024
"""Rows of one connection without an answer; beyond it, this connection alone is not read for a while, so that one that
floods cannot fill what all share. Devices that pipeline have tens."""

CONNECTION_BYTES_MAX: Final = 256 * 1024
"""The same by bytes; one payload of any allowed size always goes through."""


class Speaker(Protocol):
    """The connection."""

    def write(self, data: bytes) -> None:
        """Nothing, once it is closing."""
        ...

    def origin(self, topic: str) -> Origin: ...

    def not_taken(self, rows: int, code: str) -> None:
        """The client must send them again: its connection ends."""
        ...

    def eased(self) -> None:
        """Less waits than before."""
        ...


class Inbound:
    """A Waiter of the collector, for QoS 0 and 1; QoS 2 has waiters of its own."""

    __slots__ = (
        "_bytes", "_collector", "_counters", "_network", "_once", "_routing", "_rows", "_session", "_speaker",
        "unanswered",
    )  # fmt: skip

    def __init__(
        self,
        speaker: Speaker,
        session: Session,
        network: MqttNetwork,
        collector: Collector,
        counters: ListenerCounters,
    ) -> None:
        self.unanswered = 0
        """Messages of QoS 1 and 2 that are not on disk yet."""
        self._speaker = speaker
        self._session = session
        self._network = network
        self._collector = collector
        self._counters = counters
        self._routing: Routing | None = None
        self._once: dict[Priority, ExactlyOnce] = {}
        self._rows = 0
        self._bytes = 0

    @property
    def is_full(self) -> bool:
        return self._rows > CONNECTION_RECORDS_MAX or self._bytes > CONNECTION_BYTES_MAX

    @property
    def is_eased(self) -> bool:
        """Reading may go on: pausing and resuming has a price."""
        return self._rows <= CONNECTION_RECORDS_MAX // 2 and self._bytes <= CONNECTION_BYTES_MAX // 2

    def publish(self, run: Run) -> None:
        if run.qos == 2:
            self._publish_once(run)
            return
        if self._routing is not None or self._network.talks:
            self._routed().add(run)
        payloads = run.payloads
        self._rows += len(payloads)
        self._bytes += sum(map(len, payloads))
        self.unanswered += len(run.packet_ids)
        metadata = b"" if run.properties is NO_PROPERTIES else metadata_of(run.properties)
        self._collector.add(self._speaker.origin(_topic(run)), payloads, self, run.packet_ids, metadata=metadata)

    def release(self, packet_ids: list[bytes]) -> None:
        """PUBREL: a packet identifier is free once that is on disk, else a message that comes under it later would be
        taken for this one."""
        session, store = self._session, self._network.store
        is_noted = False
        for packet_id in packet_ids:
            number = int.from_bytes(packet_id, "big")
            if number in session.held:
                del session.held[number]
                if session.number:
                    store.release(session, number)
                    is_noted = True
        if is_noted:
            store.then(lambda: self._speaker.write(encode_acks(PUBCOMP, packet_ids)))
        else:
            self._speaker.write(encode_acks(PUBCOMP, packet_ids))

    # Waiter

    def recorded(self, owed: Owed) -> None:
        if self._routing is not None:
            self._routing.recorded(owed.rows)
            # What others are to get is promised with it.
            self._network.store.then(lambda: self._speaker.write(encode_acks(PUBACK, owed.tokens)))
        elif owed.tokens:
            self._speaker.write(encode_acks(PUBACK, owed.tokens))
        self._settle(owed, "")

    def refused(self, owed: Owed, code: str) -> None:
        """A client that is cut off sends again what has no PUBACK: one that is told no would forget it."""
        if self._routing is not None:
            self._routing.refused(owed.rows)
        self._settle(owed, code)

    # inside

    def _publish_once(self, run: Run) -> None:
        """What is held was recorded, or is being recorded, and is not recorded again [MQTT-4.3.3-2]."""
        session = self._session
        payloads: list[bytes] = []
        packet_ids: list[bytes] = []
        known: list[bytes] = []
        for payload, packet_id in zip(run.payloads, run.packet_ids, strict=True):
            number = int.from_bytes(packet_id, "big")
            if number in session.recording:
                continue  # answered when it is recorded
            if number in session.held:
                if self._network.is_logged(session, number):
                    known.append(packet_id)
                    continue
                del session.held[number]
            session.recording.add(number)
            payloads.append(payload)
            packet_ids.append(packet_id)
        if known:
            self._speaker.write(encode_acks(PUBREC, known))
        if not payloads:
            return
        origin = self._speaker.origin(_topic(run))
        waiter = self._once.get(origin.priority)
        if waiter is None:
            waiter = ExactlyOnce(session, origin.priority, self._network, self._settle)
            self._once[origin.priority] = waiter
        if waiter.routing is not None or self._network.talks:
            if waiter.routing is None:
                waiter.routing = Routing(self._network, session, rows_before=waiter.rows)
            waiter.routing.add(Run(run.topic, payloads, packet_ids, 2, run.retain, run.dup, run.properties))
        waiter.rows += len(payloads)
        self._rows += len(payloads)
        self._bytes += sum(map(len, payloads))
        self.unanswered += len(payloads)
        metadata = metadata_of(run.properties)
        self._collector.add(origin, payloads, waiter, packet_ids, metadata=metadata, pledger=waiter)

    def _routed(self) -> Routing:
        if self._routing is None:
            self._routing = Routing(self._network, self._session, rows_before=self._rows)
        return self._routing

    def _settle(self, owed: Owed, code: str) -> None:
        self._rows -= owed.rows
        self._bytes -= owed.bytes
        self.unanswered -= len(owed.tokens)
        if not code:
            self._counters.recorded += owed.rows
        else:
            refused = self._counters.refused
            refused[code] = refused.get(code, 0) + owed.rows
            if owed.tokens:
                self._speaker.not_taken(owed.rows, code)
        self._speaker.eased()


def _topic(run: Run) -> str:
    """An answer to a command names it, whether its device did so by the topic or by the correlation data."""
    if run.topic != RESPONSE_SPACE or run.properties.correlation is None:
        return run.topic
    return f"{RESPONSE_SPACE}/{correlation_of(run.properties)}"
