"""A hub without sockets, with a clock that is turned by hand, and clients that are names."""

from __future__ import annotations

from protocols.batch import BatchKey
from protocols.messages import Lane
from sync.bus.contract import TopicSpec
from sync.bus.frames import (
    Ack,
    ClientFrame,
    Deliver,
    Hello,
    HubFrame,
    Nak,
    Publish,
    Refuse,
    Subscribe,
    Unsubscribe,
    decode_hub_frame,
    encode_frame,
)
from sync.bus.hub import Hub

GRANT = b"the hub's own"
WINDOW = (100, 1_000_000)


class HubAtHand:
    def __init__(self, *topics: TopicSpec) -> None:
        self.now = 1000.0
        self.hub = Hub(topics, run=7000, grant=GRANT, now=self.now, lease_s=5.0)
        self.inbox: dict[bytes, list[tuple[HubFrame, bytes]]] = {}

    def say(self, peer: bytes, frame: ClientFrame, data: bytes | None = None) -> None:
        self.raw(peer, [encode_frame(frame)] if data is None else [encode_frame(frame), data])

    def raw(self, peer: bytes, parts: list[bytes]) -> None:
        self.hub.receive(peer, parts, self.now)
        self._collect()

    def passes(self, seconds: float) -> None:
        """Time in steps, as the shell ticks."""
        until = self.now + seconds
        while self.now < until:
            self.now = min(until, self.now + 0.1)
            self.hub.tick(self.now)
        self._collect()

    def stands_still(self, seconds: float) -> None:
        """Time in one step, as for a process that was stopped."""
        self.now += seconds
        self.hub.tick(self.now)
        self._collect()

    def heard(self, peer: bytes) -> list[HubFrame]:
        """What this client was sent since the last call, without batches."""
        return [frame for frame, _ in self.inbox.pop(peer, [])]

    def deliveries(self, peer: bytes) -> list[tuple[Deliver, bytes]]:
        """The same, deliveries only."""
        return [(frame, data) for frame, data in self.inbox.pop(peer, []) if isinstance(frame, Deliver)]

    def trust(self, peer: bytes) -> None:
        self.say(peer, Hello(GRANT))
        self.heard(peer)

    def publish(
        self, peer: bytes, ticket: int, data: bytes, *, topic: str = "inbound", deadline_ms: int = 10_000
    ) -> None:
        self.say(peer, Publish(ticket, topic, Lane.LIVE, BatchKey(1, ticket), deadline_ms), data)

    def subscribe(
        self,
        peer: bytes,
        channel: str = "recorder",
        *,
        topic: str = "inbound",
        reader: int = 1,
        ephemeral: bool = False,
        window: tuple[int, int] = WINDOW,
    ) -> None:
        self.say(peer, Subscribe(reader, topic, channel, ephemeral, *window))

    def recorder(self, peer: bytes = b"recorder", window: tuple[int, int] = WINDOW) -> bytes:
        """A trusted client that reads `inbound` as `recorder`."""
        self.trust(peer)
        self.subscribe(peer, window=window)
        self.heard(peer)
        return peer

    def ack(self, peer: bytes, *tags: int, reader: int = 1) -> None:
        self.say(peer, Ack(reader, list(tags)))

    def nak(self, peer: bytes, tag: int, delay_ms: int = 0) -> None:
        self.say(peer, Nak(1, tag, delay_ms))

    def refuse(self, peer: bytes, tag: int, code: str, detail: str) -> None:
        self.say(peer, Refuse(1, tag, code, detail))

    def unsubscribe(self, peer: bytes, reader: int = 1) -> None:
        self.say(peer, Unsubscribe(reader))

    def _collect(self) -> None:
        for peer, parts in self.hub.take_outgoing():
            self.inbox.setdefault(peer, []).append(decode_hub_frame(parts))
