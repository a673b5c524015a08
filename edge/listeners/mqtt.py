"""The MQTT listener: one port, one network."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from edge.credentials import Credentials
from edge.listeners.collector import Collector
from edge.listeners.config import TlsFiles, priority_rules
from edge.listeners.listener import ListenerCounters, Shared
from edge.listeners.mqtt_config import MqttConfig
from edge.listeners.mqtt_connection import MqttConnection
from edge.listeners.priorities import NO_PRIORITIES, Priorities
from edge.listeners.refusals import Refusals
from edge.listeners.sockets import BACKLOG, TLS_HANDSHAKE_S, address, cannot_listen, tls_context
from edge.listeners.way import DeviceAbsentError
from edge.listeners.wheel import DeadlineWheel
from protocols.messages import Command
from protocols.mqtt.errors import NotSubscribedError, WindowFullError
from protocols.mqtt.topics import DEVICE_SPACE

CONNECTIONS_MAX: Final = 10_000
"""Default; each takes about 10 kB here and a file descriptor."""

TICK_S: Final = 1.0

DRAIN_S: Final = 10.0
"""At close: for what devices sent to be recorded and acknowledged."""

CLOSE_S: Final = 2.0
"""At close: for devices to take their last bytes."""


class MqttListener:
    """Devices' MQTT 3.1.1 connections of one network, into the collector.

    A name, `(user name's device, client identifier)`, has one connection: a second one closes the first
    [MQTT-3.1.4-2]. Client identifiers of different devices cannot meet, so no device can push out another.
    """

    kind = "mqtt"
    trouble = ""

    def __init__(
        self,
        name: str,
        network_id: str,
        host: str,
        port: int,
        credentials: Credentials,
        collector: Collector,
        *,
        tls: TlsFiles | None = None,
        connections_max: int = CONNECTIONS_MAX,
        priorities: Priorities = NO_PRIORITIES,
    ) -> None:
        """`name` stands in each record's origin; `port` 0: a free one, known after `start`."""
        self.name = name
        self.network_id = network_id
        self.host = host
        self.port = port
        self.credentials = credentials
        self.priorities = priorities
        self.collector = collector
        self.counters = ListenerCounters()
        self.refusals = Refusals(name)
        self.wheel = DeadlineWheel()
        self.paused = False
        self._tls = tls
        self._connections_max = connections_max
        self._connections: set[MqttConnection] = set()
        self._sessions: dict[tuple[str, str, str], MqttConnection] = {}
        self._by_device: dict[tuple[str, str], list[MqttConnection]] = {}
        self._server: asyncio.Server | None = None
        self._tick: asyncio.TimerHandle | None = None
        self._empty: asyncio.Event = asyncio.Event()

    @property
    def place(self) -> str:
        return address(self.host, self.port)

    @property
    def is_listening(self) -> bool:
        return self._server is not None

    async def start(self) -> None:
        """Listens. Raises UserError where the port or the certificate cannot be used."""
        loop = asyncio.get_running_loop()
        context = None if self._tls is None else tls_context(self.name, self._tls)
        try:
            self._server = await loop.create_server(
                lambda: MqttConnection(self, loop),
                self.host,
                self.port,
                backlog=BACKLOG,
                ssl=context,
                ssl_handshake_timeout=None if context is None else TLS_HANDSHAKE_S,
            )
        except OSError as error:
            raise cannot_listen(self.name, self.host, self.port, error) from error
        self.port = self._server.sockets[0].getsockname()[1]
        self.collector.attach(self)
        self._turn(loop)

    async def close(self) -> None:
        """Takes no more; answers what came, as far as it is recorded within DRAIN_S; then closes all connections."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        self.pause()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.collector.drained(), DRAIN_S)
        for connection in list(self._connections):
            connection.close()
        self._empty.clear()
        if self._connections:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), CLOSE_S)
        for connection in list(self._connections):
            connection.abort()
        if self._tick is not None:
            self._tick.cancel()
        self.collector.detach(self)
        await server.wait_closed()

    def way(self, alias_key: str, alias: str) -> MqttWay | None:
        return MqttWay(self, alias_key, alias) if (alias_key, alias) in self._by_device else None

    def send(self, alias_key: str, alias: str, topic: str, payload: bytes, *, qos: int = 1) -> asyncio.Future[None]:
        """A message to a device (`topic` below `down`), on its newest connection. The future is done at the device's
        PUBACK, or raises DeviceGoneError. Raises DeviceAbsentError, NotSubscribedError or WindowFullError."""
        connections = self._by_device.get((alias_key, alias))
        if not connections:
            raise DeviceAbsentError(f"{alias_key}:{alias} is not connected to {self.name}")
        return connections[-1].send(topic, payload, qos)

    def recheck(self) -> None:
        """After a change of the registry: ends connections whose credential it no longer holds."""
        for connection in list(self._sessions.values()):
            if connection.grant is not None and not self.credentials.still_holds(connection.grant):
                connection.revoke()

    # for the collector

    def pause(self) -> None:
        self.paused = True
        for connection in self._connections:
            connection.hold()

    def resume(self) -> None:
        if self._server is None:
            return  # closing: nothing more is read
        self.paused = False
        for connection in self._connections:
            connection.release()

    # for connections

    def admit(self, connection: MqttConnection) -> bool:
        self.counters.connections_total += 1
        if len(self._connections) >= self._connections_max or self._server is None:
            return False
        self._connections.add(connection)
        self.counters.connections = len(self._connections)
        return True

    def logged_in(self, connection: MqttConnection) -> None:
        grant = connection.grant
        if grant is None:
            return
        device = (grant.alias_key, grant.alias)
        # An empty client identifier is one of its own for each connection [MQTT-3.1.3-6].
        session = (*device, connection.client_id or f"\0{connection.peer}")
        older = self._sessions.get(session)
        self._sessions[session] = connection
        self._by_device.setdefault(device, []).append(connection)
        if older is not None:
            older.take_over()

    def left(self, connection: MqttConnection) -> None:
        self._connections.discard(connection)
        self.counters.connections = len(self._connections)
        if not self._connections:
            self._empty.set()
        grant = connection.grant
        if grant is None:
            return
        device = (grant.alias_key, grant.alias)
        session = (*device, connection.client_id or f"\0{connection.peer}")
        if self._sessions.get(session) is connection:
            del self._sessions[session]
        connections = self._by_device[device]
        connections.remove(connection)
        if not connections:
            del self._by_device[device]

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        self._tick = loop.call_later(TICK_S, self._turn, loop)
        self.wheel.turn()


class MqttWay:
    """To a device on its newest connection, to the topic `down/<name>`; it has it at its PUBACK."""

    confirms = True

    def __init__(self, listener: MqttListener, alias_key: str, alias: str) -> None:
        self._listener = listener
        self._device = (alias_key, alias)

    async def send(self, command: Command) -> None:
        topic = f"{DEVICE_SPACE}/{command.name}"
        try:
            await self._listener.send(*self._device, topic, command.payload)
        except NotSubscribedError:
            raise DeviceAbsentError(f"{':'.join(self._device)} does not subscribe to {topic}") from None
        except WindowFullError as error:
            raise DeviceAbsentError(str(error)) from None


def make_listener(config: MqttConfig, shared: Shared) -> MqttListener:
    return MqttListener(
        config.name,
        config.network,
        config.host,
        config.port,
        Credentials(shared.registry, config.network),
        shared.collector,
        tls=config.tls,
        connections_max=config.connections_max,
        priorities=Priorities(priority_rules(config.priorities)),
    )
