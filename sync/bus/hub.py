"""The hub of the edge bus, without I/O: frames of many clients in, frames to send out.

A hub lives in the gateway's process. The shell (zeromq.py) calls `receive` for each message, `tick` every TICK_S, and
sends what `take_outgoing` gives. Clients are known by what the transport calls them, and forgotten after a lease.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from protocols.errors import WireError
from sync.bus.channel import Channel, ChannelState, HubReader, Item, Publication
from sync.bus.contract import TopicSpec
from sync.bus.frames import (
    BATCH_BYTES_MAX,
    CLOSING,
    CONFLICT,
    DEADLINE,
    FORBIDDEN,
    FULL,
    LIMIT,
    NO_READER,
    UNKNOWN_TOPIC,
    Accepted,
    Ack,
    Deliver,
    Error,
    Failed,
    Gap,
    Hello,
    HubFrame,
    Nak,
    Publish,
    Refuse,
    Refused,
    Subscribe,
    Subscribed,
    Unsubscribe,
    Unsubscribed,
    Welcome,
    decode_client_frame,
    encode_frame,
)

TICK_S: Final = 0.1
"""How exact deadlines, leases and delays are: all are seconds, and ten wake-ups a second cost a gateway nothing."""

LEASE_S: Final = 5.0
"""A client that says nothing for this long is gone, and its readers' unanswered batches go to others: longer than a
pause of a healthy process, shorter than a publisher's deadline."""

HEARTBEATS_PER_LEASE: Final = 5
"""Four may be lost or late."""

PUBLISH_S_MAX: Final = 60.0
"""The longest deadline that a publisher is granted: after it, it had better ask again."""

NAK_S_MAX: Final = 60.0
"""The longest delay of a redelivery: later ones belong into a store, not into memory."""

PEERS_MAX: Final = 256
"""Clients at once: the gateway's own dozen, and room for a site's."""

PEER_READERS_MAX: Final = 64
"""Readers of one client."""

CHANNELS_MAX: Final = 32
"""Channels of one topic: each that does not count may hold a queue."""

CHANNEL_IDLE_S: Final = 600.0
"""A channel that does not count keeps its queue this long without a reader: a restart of a user's process."""

PUBLICATIONS_MAX: Final = 4096
"""Unanswered publications of one topic: bounds what `tick` looks through, however small batches are."""

Outgoing = tuple[bytes, list[bytes]]
"""A client, as the transport calls it, and the parts of a message for it."""


class HubCounts(msgspec.Struct):
    """Since the hub started. Publications: published = accepted + failed + refused + unanswered."""

    published: int = 0
    accepted: int = 0
    failed: int = 0
    refused: int = 0
    malformed: int = 0
    """Messages that were no frames."""
    redelivered: int = 0
    peers_lost: int = 0
    """Clients whose lease ran out, or who did not take what they were sent."""


class _Peer:
    __slots__ = ("heard", "id", "readers", "session", "trusted")

    def __init__(self, peer_id: bytes, session: int, now: float) -> None:
        self.id = peer_id
        self.session = session
        self.heard = now
        self.trusted = False
        self.readers: dict[int, HubReader] = {}


class _Topic:
    __slots__ = ("channels", "spec", "unanswered", "unanswered_bytes")

    def __init__(self, spec: TopicSpec) -> None:
        self.spec = spec
        self.channels = {name: Channel(spec.name, name, name, counts=True, ephemeral=False) for name in spec.channels}
        self.unanswered: dict[int, Publication] = {}
        self.unanswered_bytes = 0

    def is_full(self, size: int) -> bool:
        if not self.unanswered:
            return False
        return self.unanswered_bytes + size > self.spec.bytes_max or len(self.unanswered) >= PUBLICATIONS_MAX


class Hub:
    """`run`: a random number, 62 bits, so that clients see a restart. `grant`: a random secret for the gateway's own
    clients, who alone read channels that count and publish to topics that are not public. Times are seconds of a
    monotonic clock."""

    def __init__(self, topics: Iterable[TopicSpec], *, run: int, grant: bytes, now: float, lease_s: float = LEASE_S):
        self.counts = HubCounts()
        self._topics = {spec.name: _Topic(spec) for spec in topics}
        self._grant = grant
        self._lease_s = lease_s
        self._heartbeat_ms = int(lease_s * 1000 / HEARTBEATS_PER_LEASE)
        self._peers: dict[bytes, _Peer] = {}
        self._session = run
        self._number = 0
        self._tag = 0
        self._ticked = now
        self._closing = False
        self._outgoing: list[Outgoing] = []
        self._accepted: dict[bytes, list[int]] = {}

    def receive(self, peer_id: bytes, parts: Sequence[bytes], now: float) -> None:
        """One message of a client. What is wrong with it is answered and counted, never raised."""
        peer = self._peers.get(peer_id)
        if peer is None:
            if len(self._peers) >= PEERS_MAX:
                self._send(peer_id, Error(LIMIT, f"the bus has {PEERS_MAX} clients, which is all it serves"))
                return
            self._session += 1
            peer = self._peers[peer_id] = _Peer(peer_id, self._session, now)
        peer.heard = now
        try:
            frame, data = decode_client_frame(parts)
        except WireError as error:
            self.counts.malformed += 1
            self._send(peer_id, Error(error.code, error.detail))
            return
        match frame:
            case Publish():
                self._publish(peer, frame, data, now)
            case Ack():
                self._ack(peer, frame)
            case Hello():
                self._hello(peer, frame)
            case Nak():
                self._nak(peer, frame, now)
            case Refuse():
                self._refuse(peer, frame)
            case Subscribe():
                self._subscribe(peer, frame, now)
            case Unsubscribe():
                self._unsubscribe(peer, frame.reader, now)

    def tick(self, now: float) -> None:
        """Ends leases, deadlines, delays and idle channels that are due."""
        stood_still = now - self._ticked
        self._ticked = now
        if stood_still > self._lease_s / 2:
            # The process was stopped or busy: nobody could be heard, so nobody is to blame.
            for peer in self._peers.values():
                peer.heard += stood_still
        for peer in [peer for peer in self._peers.values() if now - peer.heard > self._lease_s]:
            self.gone(peer.id, now)
        for topic in self._topics.values():
            late = [publication for publication in topic.unanswered.values() if publication.deadline <= now]
            for publication in late:
                self._fail(topic, publication)
            for channel in list(topic.channels.values()):
                if late and channel.counts:
                    channel.drop_done()
                if channel.release(now):
                    self._pump(channel)
                if not channel.counts and not channel.readers and now - channel.idle_since > CHANNEL_IDLE_S:
                    del topic.channels[channel.key]

    def gone(self, peer_id: bytes, now: float) -> None:
        """A client is not there any more: its readers end. What it published goes on."""
        peer = self._peers.pop(peer_id, None)
        if peer is None:
            return
        if peer.readers:
            self.counts.peers_lost += 1
        for number in list(peer.readers):
            self._unsubscribe(peer, number, now)

    def close(self) -> None:
        """Every publisher that still waits is told to publish again, later; new ones too."""
        self._closing = True
        for topic in self._topics.values():
            for publication in list(topic.unanswered.values()):
                self._finish(topic, publication)
                self._failed(publication.peer_id, publication.ticket, CLOSING, "the bus is closing")

    def take_outgoing(self) -> list[Outgoing]:
        """What is to be sent since the last call, in order."""
        for peer_id, tickets in self._accepted.items():
            self._send(peer_id, Accepted(tickets))
        self._accepted.clear()
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def channels(self) -> list[ChannelState]:
        return [channel.state() for topic in self._topics.values() for channel in topic.channels.values()]

    def _send(self, peer_id: bytes, frame: HubFrame) -> None:
        self._outgoing.append((peer_id, [encode_frame(frame)]))

    def _hello(self, peer: _Peer, frame: Hello) -> None:
        if frame.grant:
            peer.trusted = hmac.compare_digest(frame.grant, self._grant)
            if not peer.trusted:
                self._send(peer.id, Error(FORBIDDEN, "this grant is not the hub's"))
        self._send(peer.id, Welcome(peer.session, self._heartbeat_ms))

    def _publish(self, peer: _Peer, frame: Publish, data: bytes, now: float) -> None:
        self.counts.published += 1
        topic = self._topics.get(frame.topic)
        if topic is None:
            return self._refused(peer.id, frame.ticket, UNKNOWN_TOPIC, f"there is no topic {frame.topic}")
        if not (topic.spec.public or peer.trusted):
            detail = f"{frame.topic} takes batches of the gateway itself only"
            return self._refused(peer.id, frame.ticket, FORBIDDEN, detail)
        if len(data) > BATCH_BYTES_MAX:
            detail = f"batch of {len(data):,} bytes; the limit is {BATCH_BYTES_MAX:,}"
            return self._refused(peer.id, frame.ticket, LIMIT, detail)
        if self._closing:
            return self._failed(peer.id, frame.ticket, CLOSING, "the bus is closing")
        if topic.is_full(len(data)):
            detail = f"{topic.unanswered_bytes:,} bytes wait for {', '.join(topic.spec.channels)}"
            return self._failed(peer.id, frame.ticket, FULL, detail)
        self._number += 1
        deadline = now + min(frame.deadline_ms / 1000, PUBLISH_S_MAX)
        publication = Publication(
            self._number, peer.id, frame.ticket, data, frame.key, frame.lane, deadline, list(topic.spec.channels)
        )
        if publication.missing:
            topic.unanswered[publication.number] = publication
            topic.unanswered_bytes += len(data)
        else:
            self._answer_accepted(publication)
        for channel in topic.channels.values():
            channel.add(publication)
            self._pump(channel)
        return None

    def _ack(self, peer: _Peer, frame: Ack) -> None:
        reader = peer.readers.get(frame.reader)
        if reader is None:
            return  # its lease ran out, or it crossed the reader's own end: the batch was given to another
        channel = reader.channel
        for tag in frame.tags:
            item = reader.answer(tag)
            if item is not None and channel.counts and not item.publication.done:
                self._acknowledged(channel, item.publication)
        self._pump(channel)

    def _acknowledged(self, channel: Channel, publication: Publication) -> None:
        publication.missing.remove(channel.name)
        if not publication.missing:
            self._finish(self._topics[channel.topic], publication)
            self._answer_accepted(publication)

    def _nak(self, peer: _Peer, frame: Nak, now: float) -> None:
        answered = self._answered(peer, frame.reader, frame.tag)
        if answered is None:
            return
        channel, item = answered
        if frame.delay_ms:
            channel.delay(item, now + min(frame.delay_ms / 1000, NAK_S_MAX))
        else:
            channel.give_back([item])
        self._pump(channel)

    def _refuse(self, peer: _Peer, frame: Refuse) -> None:
        answered = self._answered(peer, frame.reader, frame.tag)
        if answered is None:
            return
        channel, item = answered
        publication = item.publication
        if channel.counts and not publication.done:
            self._finish(self._topics[channel.topic], publication)
            self._refused(publication.peer_id, publication.ticket, frame.code, frame.detail)
        self._pump(channel)

    def _answered(self, peer: _Peer, number: int, tag: int) -> tuple[Channel, Item] | None:
        reader = peer.readers.get(number)
        item = reader.answer(tag) if reader is not None else None
        return None if reader is None or item is None else (reader.channel, item)

    def _subscribe(self, peer: _Peer, frame: Subscribe, now: float) -> None:
        topic = self._topics.get(frame.topic)
        if topic is None:
            return self._unsubscribed(peer, frame, UNKNOWN_TOPIC, f"there is no topic {frame.topic}")
        self._unsubscribe(peer, frame.reader, now)
        if len(peer.readers) >= PEER_READERS_MAX:
            return self._unsubscribed(peer, frame, LIMIT, f"{PEER_READERS_MAX} readers of one client")
        if frame.channel in topic.spec.channels:
            if not peer.trusted:
                detail = f"the gateway itself is {frame.channel} of {frame.topic}; read another channel"
                return self._unsubscribed(peer, frame, FORBIDDEN, detail)
            if frame.ephemeral:
                return self._unsubscribed(peer, frame, CONFLICT, f"{frame.channel} of {frame.topic} is not ephemeral")
        key = f"{frame.channel}/{peer.session}/{frame.reader}" if frame.ephemeral else frame.channel
        channel = topic.channels.get(key)
        if channel is None:
            if len(topic.channels) >= CHANNELS_MAX:
                return self._unsubscribed(peer, frame, LIMIT, f"{frame.topic} has {CHANNELS_MAX} channels")
            channel = Channel(frame.topic, frame.channel, key, counts=False, ephemeral=frame.ephemeral)
            topic.channels[key] = channel
        reader = HubReader(peer.id, frame.reader, channel, frame.batches_max, frame.bytes_max)
        peer.readers[frame.reader] = reader
        channel.readers.append(reader)
        self._send(peer.id, Subscribed(frame.reader))
        self._pump(channel)
        return None

    def _unsubscribe(self, peer: _Peer, number: int, now: float) -> None:
        reader = peer.readers.pop(number, None)
        if reader is None:
            return
        channel = reader.channel
        channel.readers.remove(reader)
        if channel.ephemeral:
            del self._topics[channel.topic].channels[channel.key]
            return
        channel.idle_since = now
        channel.give_back(list(reader.unanswered.values()))
        self._pump(channel)

    def _pump(self, channel: Channel) -> None:
        """Hands out what readers have room for."""
        while (delivery := channel.next_delivery()) is not None:
            reader, item = delivery
            if channel.missed:
                self._send(reader.peer_id, Gap(reader.number, channel.missed))
                channel.missed = 0
            self._tag += 1
            reader.take(self._tag, item)
            publication = item.publication
            frame = Deliver(reader.number, self._tag, publication.lane, publication.key, item.delivered)
            self._outgoing.append((reader.peer_id, [encode_frame(frame), publication.data]))
            self.counts.redelivered += item.delivered
            item.delivered = True

    def _fail(self, topic: _Topic, publication: Publication) -> None:
        self._finish(topic, publication)
        for name in publication.missing:
            if not topic.channels[name].readers:
                detail = f"no {name} reads {topic.spec.name}"
                return self._failed(publication.peer_id, publication.ticket, NO_READER, detail)
        detail = f"{', '.join(publication.missing)} of {topic.spec.name} did not answer in time"
        return self._failed(publication.peer_id, publication.ticket, DEADLINE, detail)

    def _finish(self, topic: _Topic, publication: Publication) -> None:
        publication.done = True
        del topic.unanswered[publication.number]
        topic.unanswered_bytes -= len(publication.data)

    def _answer_accepted(self, publication: Publication) -> None:
        self.counts.accepted += 1
        self._accepted.setdefault(publication.peer_id, []).append(publication.ticket)

    def _failed(self, peer_id: bytes, ticket: int, code: str, detail: str) -> None:
        self.counts.failed += 1
        self._send(peer_id, Failed(ticket, code, detail))

    def _refused(self, peer_id: bytes, ticket: int, code: str, detail: str) -> None:
        self.counts.refused += 1
        self._send(peer_id, Refused(ticket, code, detail))

    def _unsubscribed(self, peer: _Peer, frame: Subscribe, code: str, detail: str) -> None:
        self._send(peer.id, Unsubscribed(frame.reader, code, detail))
