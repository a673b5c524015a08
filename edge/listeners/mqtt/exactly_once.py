"""QoS 2 from a device: one record for a message, however often it is sent, also over a restart (section 4.3.3).

    PUBLISH ─▶ note (packet id, key of the batch) ─▶ record ─▶ PUBREC
    PUBREL  ─▶ forget the packet id ─▶ PUBCOMP

Each arrow is taken once what is before it is on disk. So after a crash, a noted packet identifier was recorded if, and
only if, the log has its batch. A session that ends with its connection is not noted: nobody asks after it again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edge.listeners.filling import Flush, Owed
from edge.listeners.mqtt.network import MqttNetwork
from edge.listeners.mqtt.routing import Routing
from protocols.batch import BatchKey
from protocols.messages import Priority
from protocols.mqtt.packets import encode_acks
from protocols.mqtt.session import Session
from protocols.mqtt.wire import PUBREC


class ExactlyOnce:
    """The rows of one session and priority, as a Pledger of the collector."""

    def __init__(
        self,
        session: Session,
        priority: Priority,
        network: MqttNetwork,
        settled: Callable[[Owed, str], None],
    ) -> None:
        """`settled` is told of rows that are recorded, or why they are not."""
        self.routing: Routing | None = None
        self.rows = 0
        """That wait."""
        self._session = session
        self._priority = priority
        self._network = network
        self._settled = settled
        self._key: BatchKey | None = None
        self._ticket = 0

    def pledge(self, owed: Owed, keys: Mapping[Priority, BatchKey]) -> Flush | None:
        self._key = keys[self._priority]
        self._ticket = 0
        if not self._session.number:
            return None
        store = self._network.store
        store.hold(self._session, [int.from_bytes(each, "big") for each in owed.tokens], self._key)
        self._ticket = store.ticket()
        return store.flushed

    def recorded(self, owed: Owed) -> None:
        session, store = self._session, self._network.store
        self.rows -= owed.rows
        packet_ids = [int.from_bytes(each, "big") for each in owed.tokens]
        session.recording.difference_update(packet_ids)
        session.held.update(dict.fromkeys(packet_ids))
        if self.routing is not None:
            self.routing.recorded(owed.rows)
        if self.routing is None and store.is_safe(self._ticket):
            self._answer(owed.tokens)
        else:
            store.then(lambda: self._answer(owed.tokens))
        self._settled(owed, "")

    def refused(self, owed: Owed, code: str) -> None:
        """Some of them may be recorded all the same, if only the answer was lost: the key says so when they come
        again."""
        session = self._session
        self.rows -= owed.rows
        packet_ids = [int.from_bytes(each, "big") for each in owed.tokens]
        session.recording.difference_update(packet_ids)
        if self._key is not None:
            session.held.update(dict.fromkeys(packet_ids, self._key))
        if self.routing is not None:
            self.routing.refused(owed.rows)
        self._settled(owed, code)

    def _answer(self, packet_ids: list[bytes]) -> None:
        """Whoever speaks for the session now."""
        speaker = self._network.speaker(self._session)
        if speaker is not None:
            speaker.write(encode_acks(PUBREC, packet_ids))
