"""One device's connection: the shell around protocols/mqtt. No task and no await; one call a read."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from functools import partial
from typing import Final, cast

from edge.credentials import Grant, Refusal
from edge.listeners.mqtt.hub import CLOSE_REASONS, LOGIN_REASONS, PARTINGS, Hub
from edge.listeners.mqtt.inbound import CONNECTION_RECORDS_MAX, Inbound
from edge.listeners.mqtt.outgoing import Outgoing
from edge.listeners.refusals import DATA_BYTES_MAX, Refused
from edge.listeners.sockets import peer_of, watch_peer
from protocols.events import event_codec
from protocols.limits import MQTT_PACKET_BYTES_MAX
from protocols.messages import Origin, Priority
from protocols.mqtt.connect import Connack, Connect
from protocols.mqtt.incoming import TOPIC_ALIASES_MAX, TOPICS_REMEMBERED_MAX, Acks, Incoming, Item, Received, Run
from protocols.mqtt.packets import (
    Ack,
    Disconnect,
    Subscribe,
    Subscription,
    Unsubscribe,
    encode_disconnect,
    encode_suback,
    encode_unsuback,
)
from protocols.mqtt.properties import Properties
from protocols.mqtt.reasons import Reason
from protocols.mqtt.session import Session, expiry_of
from protocols.mqtt.wire import PUBREL, V5

CONNECT_TICKS: Final = 10
"""Seconds from the connection to a whole CONNECT: three losses of a packet on a slow link, and no more."""

CLOSE_TICKS: Final = 5
"""Seconds for a client to take its last bytes before the connection is cut."""

WRITE_BYTES_MAX: Final = 2 * MQTT_PACKET_BYTES_MAX
"""Unsent bytes, beyond what the kernel holds: two of the largest messages, or 130,000 PUBACKs that nobody reads."""

RECEIVE_MAX: Final = 4 * CONNECTION_RECORDS_MAX
"""Messages of QoS 1 and 2 that a client of MQTT 5 may have on their way. More than that is a fault of its own."""

CONTROL_PACKETS_PER_TICK_MAX: Final = 1000
"""SUBSCRIBE, PINGREQ and the like in one second: each costs as much as ten messages and moves no data."""

CONNECT_DATA_BYTES: Final = 12
"""Of a refused read before login: up to the protocol level; user name and password stand behind it."""

_HELD_BY_ALL: Final = 1
_HELD_BY_OWN: Final = 2
_HELD_BY_RATE: Final = 4


class MqttConnection(asyncio.Protocol):
    """A Watched of the wheel; what it publishes is inbound.py's, what goes to it outgoing.py's."""

    __slots__ = (
        "_closing", "_control_tick", "_controls", "_held", "_hub", "_inbound", "_incoming", "_loop", "_origins",
        "_said_goodbye", "_seen", "_transport", "address", "client_id", "grant", "outgoing", "parting", "peer",
        "session",
    )  # fmt: skip

    def __init__(self, hub: Hub, loop: asyncio.AbstractEventLoop) -> None:
        self.grant: Grant | None = None
        self.session: Session | None = None
        self.client_id = ""
        self.address = ""
        self.peer = ""
        self.parting = "connection lost"
        """Why it ended, for people."""
        self._hub = hub
        self._loop = loop
        self._transport: asyncio.Transport
        self._incoming = Incoming()
        self._inbound: Inbound | None = None
        self.outgoing: Outgoing | None = None
        self._origins: dict[str, Origin] = {}
        self._seen = 0
        self._held = 0
        self._closing = False
        self._said_goodbye = False
        self._controls = 0
        self._control_tick = 0

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.address, self.peer = peer_of(transport.get_extra_info("peername"))
        self._transport.set_write_buffer_limits(high=WRITE_BYTES_MAX)
        hub = self._hub
        if not hub.admit(self):
            self._refuse("connection_limit", "as many connections as this listener may have", b"", abort=True)
            return
        watch_peer(transport.get_extra_info("socket"))
        self._seen = hub.wheel.now
        hub.wheel.watch(self, CONNECT_TICKS)
        if hub.paused:
            self._loop.call_soon(self._begin_held)

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        hub = self._hub
        hub.counters.bytes_in += len(data)
        self._seen = hub.wheel.now
        received = self._incoming.receive(data)
        if received.items:
            self._act(received.items)
        if received.control or received.error is not None:
            self._answer(received, data)

    def pause_writing(self) -> None:
        self._refuse("slow_reader", f"the client leaves more than {WRITE_BYTES_MAX:,} bytes unread", b"", abort=True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        hub = self._hub
        hub.wheel.forget(self)
        hub.left(self)
        if self.outgoing is not None:
            self.outgoing.lost()
        connect = self._incoming.connect
        if self.session is not None and connect is not None:
            will = None if self._said_goodbye else connect.will
            origin = None if will is None else self.origin(will.topic)
            hub.network.left(self, self.session, will, origin)
            parting = self.parting if will is None else f"{self.parting}; its will was published"
            hub.attendance.disconnected(hub.name, hub.network_id, *self.device, parting)

    # Speaker (inbound.py)

    def write(self, data: bytes) -> None:
        if not self._closing:
            self._transport.write(data)

    def origin(self, topic: str) -> Origin:
        found = self._origins.get(topic)
        return self._new_origin(topic) if found is None else found

    def not_taken(self, rows: int, code: str) -> None:
        self._refuse(code, f"{rows} records were not taken", b"")

    def eased(self) -> None:
        if self._held & _HELD_BY_OWN and self._inbound is not None and self._inbound.is_eased:
            self._release(_HELD_BY_OWN)

    # Watched

    def check(self) -> int:
        if self._closing:
            self._transport.abort()
            return 0
        if self.grant is None:
            self._refuse("connect_timeout", f"no CONNECT within {CONNECT_TICKS} s", b"")
            return CLOSE_TICKS
        if self._held:
            self._seen = self._hub.wheel.now  # its bytes wait for us to read them
        left = self._seen + self._silence_ticks() - self._hub.wheel.now
        if left > 0:
            return left
        self._refuse("keep_alive", f"silent for {self._silence_ticks()} s [MQTT-3.1.2-24]", b"")
        return CLOSE_TICKS

    # for the listener and the network

    @property
    def device(self) -> tuple[str, str]:
        grant = self.grant
        return ("", "") if grant is None else (grant.alias_key, grant.alias)

    def hold(self) -> None:
        """Stops reading, because too much waits."""
        self._hold(_HELD_BY_ALL)

    def release(self) -> None:
        self._release(_HELD_BY_ALL)

    def release_rate(self) -> None:
        self._release(_HELD_BY_RATE)

    def take_over(self) -> None:
        """Another connection came with the same client identifier."""
        self._refuse("taken_over", "another connection has the same client identifier [MQTT-3.1.4-2]", b"")

    def revoke(self) -> None:
        self._refuse("revoked", "the registry no longer holds the credential of this connection", b"")

    def close(self, reason: Reason | None = None) -> None:
        """Writes what is left to write, then ends; a client of MQTT 5 that is logged in is told `reason`."""
        if not self._closing:
            if reason is Reason.SERVER_SHUTTING_DOWN:
                self.parting = "the gateway stops"
            if reason is not None and self.session is not None and self._incoming.version == V5:
                self._transport.write(encode_disconnect(Disconnect(reason), V5))
            self._closing = True
            self._transport.close()
            self._hub.wheel.watch(self, CLOSE_TICKS)

    def abort(self) -> None:
        self._closing = True
        self._transport.abort()

    # what comes in

    def _act(self, items: list[Item]) -> None:
        inbound = self._inbound
        if inbound is None:
            raise RuntimeError("a client gave messages before it was accepted")
        rows = 0
        for item in items:
            if type(item) is Run:
                rows += len(item.payloads)
                inbound.publish(item)
            elif type(item) is Acks:
                self._acked(inbound, item)
            else:
                self._obey(item)
        if not rows:
            return
        if inbound.is_full:
            self._hold(_HELD_BY_OWN)
        if inbound.unanswered > RECEIVE_MAX and self._incoming.version == V5:
            self._refuse("receive_maximum", f"more than {RECEIVE_MAX:,} messages without an answer", b"")
        elif not self._hub.spend(self, rows):
            self._hold(_HELD_BY_RATE)

    def _acked(self, inbound: Inbound, acks: Acks) -> None:
        if acks.kind == PUBREL:
            inbound.release(acks.packet_ids)
        elif self.outgoing is not None:
            for packet_id in acks.packet_ids:
                self.outgoing.acked(Ack(acks.kind, int.from_bytes(packet_id, "big")))

    def _obey(self, item: Item) -> None:
        session, inbound, outgoing = self.session, self._inbound, self.outgoing
        if session is None or inbound is None or outgoing is None:
            return
        network = self._hub.network
        match item:
            case Ack(kind=kind, packet_id=packet_id):
                if kind == PUBREL:
                    inbound.release([packet_id.to_bytes(2, "big")])
                else:
                    outgoing.acked(item)
            case Subscribe():
                codes, wanting = network.subscribe(session, item)
                suback = encode_suback(item.packet_id, codes, session.version)
                self._promise(session, partial(self._subscribed, outgoing, suback, wanting))
            case Unsubscribe():
                unsuback = encode_unsuback(item.packet_id, network.unsubscribe(session, item), session.version)
                self._promise(session, lambda: self.write(unsuback))
            case Disconnect():
                self._goodbye(session, item)

    def _subscribed(self, outgoing: Outgoing, suback: bytes, wanting: list[Subscription]) -> None:
        self.write(suback)
        outgoing.send_retained(wanting)

    def _promise(self, session: Session, answer: Callable[[], object]) -> None:
        """Answers once what was noted of a session is on disk, if it is to outlive its connection."""
        if session.number:
            self._hub.network.store.then(answer)
        else:
            answer()

    def _goodbye(self, session: Session, disconnect: Disconnect) -> None:
        self._said_goodbye = disconnect.reason is not Reason.DISCONNECT_WITH_WILL
        self.parting = "disconnected"
        expiry_s = disconnect.properties.session_expiry_s
        if expiry_s is not None:
            self._hub.network.set_expiry(session, expiry_s)
        self.close()

    def _new_origin(self, topic: str) -> Origin:
        grant = self.grant
        if grant is None:
            raise RuntimeError("a client gave messages before it was accepted")
        if len(self._origins) >= TOPICS_REMEMBERED_MAX:
            self._origins.clear()
        hub, codec = self._hub, event_codec(topic)
        priority = Priority.EVENT if codec else hub.priorities.of(topic)
        origin = Origin(hub.network_id, grant.alias_key, grant.alias, topic, codec, hub.name, priority)
        self._origins[topic] = origin
        return origin

    def _answer(self, received: Received, data: bytes) -> None:
        """All that is not a message or its answer."""
        while True:
            if received.output:
                self.write(b"".join(received.output))
            if received.error is not None:
                self._hub.counters.malformed += 1
                self._refuse(received.error.code, received.error.detail, data, reason=received.error.reason)
                return
            if self._is_too_frequent(received.control):
                detail = f"more than {CONTROL_PACKETS_PER_TICK_MAX:,} packets that move no message in a second"
                self._refuse("too_frequent", detail, data)
                return
            if received.connect is None or not self._log_in(received.connect):
                return
            received = self._incoming.receive(b"")
            if received.items:
                self._act(received.items)

    def _is_too_frequent(self, control: int) -> bool:
        now = self._hub.wheel.now
        if now != self._control_tick:
            self._control_tick, self._controls = now, 0
        self._controls += control
        return self._controls > CONTROL_PACKETS_PER_TICK_MAX

    def _log_in(self, connect: Connect) -> bool:
        hub, incoming = self._hub, self._incoming
        self.client_id = connect.client_id
        if connect.properties.auth_method is not None:
            self.write(incoming.refuse(Connack(Reason.BAD_AUTHENTICATION_METHOD)))
            self._refuse("auth_method", f"authentication method {connect.properties.auth_method[:32]!r}", b"")
            return False
        verdict = hub.check(connect, self._transport, self.address)
        if isinstance(verdict, Refusal):
            hub.counters.auth_failures += 1
            reason = LOGIN_REASONS.get(verdict.code, Reason.NOT_AUTHORIZED)
            self.write(incoming.refuse(Connack(reason)))
            self._refuse(verdict.code, verdict.detail, b"")
            return False
        self.grant = verdict
        # An empty client identifier is one of its own for each connection [MQTT-3.1.3-6].
        client_id = connect.client_id or hub.new_client_id()
        session, is_present = hub.network.log_in(self, connect, verdict, client_id)
        self.session = session
        self.write(incoming.accept(self._connack(connect, client_id, is_present)))
        self._inbound = Inbound(self, session, hub.network, hub.collector, hub.counters)
        self.outgoing = Outgoing(self, session, hub.network, connect)
        self.outgoing.resume()
        hub.attendance.connected(hub.name, hub.network_id, *self.device)
        if connect.keep_alive_s:
            hub.wheel.watch(self, self._silence_ticks())
        else:
            hub.wheel.forget(self)
        return True

    def _connack(self, connect: Connect, client_id: str, is_present: bool) -> Connack:
        if connect.version != V5:
            return Connack(Reason.SUCCESS, is_present)
        expiry_s = expiry_of(connect)
        properties = Properties(
            session_expiry_s=None if expiry_s == (connect.properties.session_expiry_s or 0) else expiry_s,
            assigned_client_id=None if connect.client_id else client_id,
            receive_max=RECEIVE_MAX,
            topic_alias_max=TOPIC_ALIASES_MAX,
            packet_bytes_max=MQTT_PACKET_BYTES_MAX,
        )
        return Connack(Reason.SUCCESS, is_present, properties)

    def _silence_ticks(self) -> int:
        """Whole ticks of silence that are surely longer than what is allowed."""
        return math.ceil(self._incoming.silence_max_s or 0) + 1

    def _refuse(
        self, code: str, detail: str, data: bytes, *, abort: bool = False, reason: Reason | None = None
    ) -> None:
        if self._closing:
            return
        self.parting = PARTINGS.get(code, detail)
        connect = self._incoming.connect
        kept = data[: DATA_BYTES_MAX if self.grant is not None else CONNECT_DATA_BYTES]
        user_name = connect.user_name or "" if connect is not None else ""
        self._hub.refusals.add(
            Refused(self._hub.collector.clock.wall_ms(), str(code), detail, self.peer, user_name, kept),
            now_s=self._loop.time(),
        )
        if abort:
            self.abort()
        else:
            self.close(reason or CLOSE_REASONS.get(code, Reason.SERVER_BUSY))

    def _begin_held(self) -> None:
        """The loop starts to read when `connection_made` has returned, whatever that did."""
        if self._hub.paused:
            self.hold()

    def _hold(self, by: int) -> None:
        if not self._held and not self._closing:
            self._transport.pause_reading()
        self._held |= by

    def _release(self, by: int) -> None:
        if not self._held & by:
            return
        self._held &= ~by
        if not self._held and not self._closing:
            self._transport.resume_reading()
