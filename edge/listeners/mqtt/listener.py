"""The MQTT listener: one port, one network."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import Final

from edge.credentials import Credentials, Grant, Refusal, RefusalCode
from edge.listeners.certificate import name_in_certificate
from edge.listeners.config import priority_rules
from edge.listeners.listener import ListenerCounters, Shared
from edge.listeners.mqtt.config import MqttConfig
from edge.listeners.mqtt.connection import MqttConnection
from edge.listeners.mqtt.network import network_of
from edge.listeners.mqtt.rates import Rates
from edge.listeners.mqtt.way import MqttWay
from edge.listeners.priorities import Priorities
from edge.listeners.refusals import Refusals
from edge.listeners.sockets import address, open_server
from edge.listeners.wheel import DeadlineWheel
from protocols.mqtt.connect import Connect
from protocols.mqtt.reasons import Reason
from tidegate.console import UserError

TICK_S: Final = 1.0

DRAIN_S: Final = 10.0
"""At close: for what devices sent to be recorded and acknowledged."""

CLOSE_S: Final = 2.0
"""At close: for devices to take their last bytes."""


class MqttListener:
    """Devices' MQTT connections of one network, into the collector."""

    kind = "mqtt"
    trouble = ""

    def __init__(self, config: MqttConfig, shared: Shared) -> None:
        """A `port` of 0 is a free one, known after `start`."""
        self.name = config.name
        self.network_id = config.network
        self.host = config.host
        self.port = config.port
        self.credentials = Credentials(shared.registry, config.network)
        self.priorities = Priorities(priority_rules(config.priorities))
        self.collector = shared.collector
        self.attendance = shared.attendance
        self.network = network_of(config.network, shared)
        self.counters = ListenerCounters()
        self.refusals = Refusals(config.name)
        self.wheel = DeadlineWheel()
        self.paused = False
        self._config = config
        self._rates = Rates(config.messages_per_s_max)
        self._slowed: set[MqttConnection] = set()
        self._connections: set[MqttConnection] = set()
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
        """Listens. Raises UserError where the port, the certificate or the data folder cannot be used."""
        loop = asyncio.get_running_loop()
        self.network.open(self.name)
        try:
            self._server = await open_server(
                self.name, self.host, self.port, lambda: self._protocol(loop), self._config.tls
            )
        except UserError:
            await self.network.close()
            raise
        self.port = self._server.sockets[0].getsockname()[1]
        self.collector.attach(self)
        self._turn(loop)

    async def close(self) -> None:
        """Takes no more; answers what came, as far as it is recorded within DRAIN_S; then closes all connections. Wills
        of clients that said no goodbye are recorded too."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        self.pause()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.collector.drained(), DRAIN_S)
        await self.network.store.flushed()
        for connection in list(self._connections):
            connection.close(Reason.SERVER_SHUTTING_DOWN)
        self._empty.clear()
        if self._connections:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), CLOSE_S)
        for connection in list(self._connections):
            connection.abort()
        if self._tick is not None:
            self._tick.cancel()
        self.network.publish_waiting_wills()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.collector.drained(), CLOSE_S)
        self.collector.detach(self)
        await server.wait_closed()
        await self.network.close()

    def way(self, alias_key: str, alias: str) -> MqttWay | None:
        connections = [each for each in self.network.connections(alias_key, alias) if each in self._connections]
        return MqttWay(f"{alias_key}:{alias}", connections) if connections else None

    def recheck(self) -> None:
        """After a change of the registry: ends connections whose credential it no longer holds."""
        for connection in list(self._connections):
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
        if len(self._connections) >= self._config.connections_max or self._server is None:
            return False
        self._connections.add(connection)
        self.counters.connections = len(self._connections)
        return True

    def check(self, connect: Connect, transport: asyncio.BaseTransport, address: str) -> Grant | Refusal:
        now_s = asyncio.get_running_loop().time()
        if not self._config.tls_client_ca:
            return self.credentials.check(connect.user_name, connect.password, address=address, now_s=now_s)
        verdict = self.credentials.certified(name_in_certificate(transport))
        if connect.user_name and isinstance(verdict, Grant):
            named = self.credentials.certified(connect.user_name)
            if named != verdict:
                return Refusal(RefusalCode.BAD_NAME, "the user name is not the device of the certificate")
        return verdict

    def new_client_id(self) -> str:
        return f"tidegate-{secrets.token_hex(8)}"

    def spend(self, connection: MqttConnection, messages: int) -> bool:
        if not self._config.messages_per_s_max or self._rates.spend(connection.device, messages, self.wheel.now):
            return True
        self._slowed.add(connection)
        return False

    def left(self, connection: MqttConnection) -> None:
        self._connections.discard(connection)
        self._slowed.discard(connection)
        self.counters.connections = len(self._connections)
        if not self._connections:
            self._empty.set()

    def _protocol(self, loop: asyncio.AbstractEventLoop) -> asyncio.Protocol:
        if self._config.transport == "tcp":
            return MqttConnection(self, loop)
        from edge.listeners.mqtt.websocket import WebSocketDoor  # the library only where it is wanted

        return WebSocketDoor(lambda: MqttConnection(self, loop), loop)

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        self._tick = loop.call_later(TICK_S, self._turn, loop)
        self.wheel.turn()
        now = self.wheel.now
        self._rates.turn(now)
        for connection in [each for each in self._slowed if self._rates.may_go_on(each.device, now)]:
            self._slowed.discard(connection)
            connection.release_rate()
        self.network.turn(self)


def make_listener(config: MqttConfig, shared: Shared) -> MqttListener:
    return MqttListener(config, shared)
