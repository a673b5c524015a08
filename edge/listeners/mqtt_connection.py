"""One device's connection: the shell around protocols/mqtt/session.py. No task and no await; one call a read."""

from __future__ import annotations

import asyncio
import math
from typing import Final, Protocol, cast

from edge.credentials import Credentials, Grant, Refusal, RefusalCode
from edge.listeners.collector import Collector
from edge.listeners.filling import Owed
from edge.listeners.listener import ListenerCounters
from edge.listeners.priorities import Priorities
from edge.listeners.refusals import DATA_BYTES_MAX, Refusals, Refused
from edge.listeners.sockets import peer_of, watch_peer
from edge.listeners.way import DeviceGoneError
from edge.listeners.wheel import DeadlineWheel
from protocols.limits import MQTT_PACKET_BYTES_MAX
from protocols.messages import Origin
from protocols.mqtt.packets import ConnectCode, encode_pubacks
from protocols.mqtt.session import TOPICS_REMEMBERED_MAX, Received, Run, Session

CONNECT_TICKS: Final = 10
"""Seconds from the connection to a whole CONNECT: three losses of a packet on a slow link, and no more."""

CLOSE_TICKS: Final = 5
"""Seconds for a client to take its last bytes before the connection is cut."""

WRITE_BYTES_MAX: Final = 2 * MQTT_PACKET_BYTES_MAX
"""Unsent bytes, beyond what the kernel holds: two of the largest messages, or 130,000 PUBACKs that nobody reads."""

CONNECTION_RECORDS_MAX: Final = 1024
"""Rows of one connection without an answer; beyond it, this connection alone is not read for a while, so that one that
floods cannot fill what all share. Devices that pipeline have tens."""

CONNECTION_BYTES_MAX: Final = 256 * 1024
"""The same by bytes; one payload of any allowed size always goes through."""

CONTROL_PACKETS_PER_TICK_MAX: Final = 1000
"""SUBSCRIBE, PINGREQ and the like in one second: each costs as much as ten messages and moves no data."""

CONNECT_DATA_BYTES: Final = 12
"""Of a refused read before login: up to the protocol level; user name and password stand behind it."""

_HELD_BY_ALL: Final = 1
_HELD_BY_OWN: Final = 2

_CONNECT_CODES: Final = {
    RefusalCode.NO_REGISTRY: ConnectCode.SERVER_UNAVAILABLE,
    RefusalCode.TOO_MANY_GUESSES: ConnectCode.SERVER_UNAVAILABLE,
}


class Hub(Protocol):
    """What a connection needs of its listener."""

    name: str
    network_id: str
    collector: Collector
    credentials: Credentials
    priorities: Priorities
    counters: ListenerCounters
    refusals: Refusals
    wheel: DeadlineWheel
    paused: bool

    def admit(self, connection: MqttConnection) -> bool:
        """False where there are as many as allowed."""
        ...

    def logged_in(self, connection: MqttConnection) -> None: ...

    def left(self, connection: MqttConnection) -> None: ...


class MqttConnection(asyncio.Protocol):
    """A Waiter of the collector and a Watched of the wheel."""

    __slots__ = (
        "_closing", "_control_tick", "_controls", "_held", "_hub", "_loop", "_origins", "_seen", "_sent", "_session",
        "_transport", "_waiting_bytes", "_waiting_rows", "address", "client_id", "grant", "peer",
    )  # fmt: skip

    def __init__(self, hub: Hub, loop: asyncio.AbstractEventLoop) -> None:
        self.grant: Grant | None = None
        self.client_id = ""
        self.address = ""
        self.peer = ""
        self._hub = hub
        self._loop = loop
        self._transport: asyncio.Transport
        self._session = Session()
        self._origins: dict[str, Origin] = {}
        self._sent: dict[int, asyncio.Future[None]] = {}
        self._seen = 0
        self._held = 0
        self._closing = False
        self._waiting_rows = 0
        self._waiting_bytes = 0
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
        received = self._session.receive(data)
        if received.runs:
            self._collect(received.runs)
        if received.control or received.error is not None:
            self._answer(received, data)

    def pause_writing(self) -> None:
        self._refuse("slow_reader", f"the client leaves more than {WRITE_BYTES_MAX:,} bytes unread", b"", abort=True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        hub = self._hub
        hub.wheel.forget(self)
        hub.left(self)
        for future in self._sent.values():
            if not future.done():
                future.set_exception(DeviceGoneError("the connection ended before the device's PUBACK"))
        self._sent.clear()

    # Waiter

    def recorded(self, owed: Owed) -> None:
        self._hub.counters.recorded += owed.rows
        if owed.tokens and not self._closing:
            self._transport.write(encode_pubacks(owed.tokens))
        self._settled(owed)

    def refused(self, owed: Owed, code: str) -> None:
        """MQTT 3.1.1 has no negative PUBACK: a client that is cut off sends again what has none."""
        refused = self._hub.counters.refused
        refused[code] = refused.get(code, 0) + owed.rows
        if owed.tokens:
            self._refuse(code, f"{owed.rows} records were not taken", b"")
        self._settled(owed)

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

    # for the listener

    def hold(self) -> None:
        """Stops reading, because too much waits."""
        self._hold(_HELD_BY_ALL)

    def release(self) -> None:
        self._release(_HELD_BY_ALL)

    def take_over(self) -> None:
        """Another connection came with the same client identifier."""
        self._refuse("taken_over", "another connection has the same client identifier [MQTT-3.1.4-2]", b"")

    def revoke(self) -> None:
        self._refuse("revoked", "the registry no longer holds the credential of this connection", b"")

    def close(self) -> None:
        """Writes what is left to write, then ends."""
        if not self._closing:
            self._closing = True
            self._transport.close()
            self._hub.wheel.watch(self, CLOSE_TICKS)

    def abort(self) -> None:
        self._closing = True
        self._transport.abort()

    def send(self, topic: str, payload: bytes, qos: int) -> asyncio.Future[None]:
        """Done when the device acknowledged it; with QoS 0, at once. Raises NotSubscribedError or WindowFullError; the
        future may raise DeviceGoneError."""
        data, packet_id = self._session.publish(topic, payload, qos)
        future = self._loop.create_future()
        if packet_id:
            self._sent[packet_id] = future
        else:
            future.set_result(None)
        self._transport.write(data)
        return future

    # inside

    def _collect(self, runs: list[Run]) -> None:
        add = self._hub.collector.add
        for run in runs:
            origin = self._origins.get(run.topic)
            if origin is None:
                origin = self._origin(run.topic)
            self._waiting_rows += len(run.payloads)
            self._waiting_bytes += sum(map(len, run.payloads))
            add(origin, run.payloads, self, run.packet_ids)
        if self._waiting_rows > CONNECTION_RECORDS_MAX or self._waiting_bytes > CONNECTION_BYTES_MAX:
            self._hold(_HELD_BY_OWN)

    def _origin(self, topic: str) -> Origin:
        grant = self.grant
        if grant is None:
            raise RuntimeError("a session gave messages before it was accepted")
        if len(self._origins) >= TOPICS_REMEMBERED_MAX:
            self._origins.clear()
        hub = self._hub
        origin = Origin(hub.network_id, grant.alias_key, grant.alias, topic, "", hub.name, hub.priorities.of(topic))
        self._origins[topic] = origin
        return origin

    def _settled(self, owed: Owed) -> None:
        self._waiting_rows -= owed.rows
        self._waiting_bytes -= owed.bytes
        if (
            self._held & _HELD_BY_OWN
            and self._waiting_rows <= CONNECTION_RECORDS_MAX // 2
            and self._waiting_bytes <= CONNECTION_BYTES_MAX // 2
        ):
            self._release(_HELD_BY_OWN)

    def _answer(self, received: Received, data: bytes) -> None:
        """All that is not a PUBLISH."""
        while True:
            if received.output:
                self._transport.write(b"".join(received.output))
            for packet_id in received.acknowledged:
                future = self._sent.pop(packet_id)
                if not future.done():
                    future.set_result(None)
            if received.error is not None:
                self._hub.counters.malformed += 1
                self._refuse(received.error.code, received.error.detail, data)
                return
            if received.ended:
                self.close()
                return
            if self._is_too_frequent(received.control):
                detail = f"more than {CONTROL_PACKETS_PER_TICK_MAX:,} packets other than PUBLISH in a second"
                self._refuse("too_frequent", detail, data)
                return
            if received.connect is None or not self._log_in():
                return
            received = self._session.receive(b"")
            if received.runs:
                self._collect(received.runs)

    def _is_too_frequent(self, control: int) -> bool:
        now = self._hub.wheel.now
        if now != self._control_tick:
            self._control_tick, self._controls = now, 0
        self._controls += control
        return self._controls > CONTROL_PACKETS_PER_TICK_MAX

    def _log_in(self) -> bool:
        hub, connect = self._hub, self._session.connect
        if connect is None:
            raise RuntimeError("a session asked to log in without a CONNECT")
        verdict = hub.credentials.check(
            connect.user_name, connect.password, address=self.address, now_s=self._loop.time()
        )
        self.client_id = connect.client_id
        if isinstance(verdict, Refusal):
            hub.counters.auth_failures += 1
            self._transport.write(self._session.refuse(_CONNECT_CODES.get(verdict.code, ConnectCode.NOT_AUTHORIZED)))
            self._refuse(verdict.code, verdict.detail, b"")
            return False
        self.grant = verdict
        self._transport.write(self._session.accept())
        hub.logged_in(self)
        if connect.keep_alive_s:
            hub.wheel.watch(self, self._silence_ticks())
        else:
            hub.wheel.forget(self)
        return True

    def _silence_ticks(self) -> int:
        """Whole ticks of silence that are surely longer than what is allowed."""
        return math.ceil(self._session.silence_max_s or 0) + 1

    def _refuse(self, code: str, detail: str, data: bytes, *, abort: bool = False) -> None:
        if self._closing:
            return
        connect = self._session.connect
        kept = data[: DATA_BYTES_MAX if self.grant is not None else CONNECT_DATA_BYTES]
        user_name = connect.user_name or "" if connect is not None else ""
        self._hub.refusals.add(
            Refused(self._hub.collector.clock.wall_ms(), str(code), detail, self.peer, user_name, kept),
            now_s=self._loop.time(),
        )
        if abort:
            self.abort()
        else:
            self.close()

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
