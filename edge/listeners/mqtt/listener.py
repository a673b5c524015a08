"""The MQTT listener: one port, one network."""

from __future__ import annotations

import asyncio
import secrets

from edge.credentials import Credentials, Grant, Refusal, RefusalCode
from edge.listeners.certificate import name_in_certificate
from edge.listeners.config import priority_rules
from edge.listeners.connections import CLOSE_S, ConnectionHub
from edge.listeners.listener import Shared
from edge.listeners.mqtt.config import MqttConfig
from edge.listeners.mqtt.connection import MqttConnection
from edge.listeners.mqtt.network import network_of
from edge.listeners.mqtt.way import MqttWay
from edge.listeners.priorities import Priorities
from protocols.mqtt.connect import Connect
from protocols.mqtt.reasons import Reason
from tidegate.console import UserError


class MqttListener(ConnectionHub[MqttConnection]):
    """Devices' MQTT connections of one network, into the collector."""

    kind = "mqtt"

    def __init__(self, config: MqttConfig, shared: Shared) -> None:
        super().__init__(config, shared)
        self.credentials = Credentials(shared.registry, config.network)
        self.priorities = Priorities(priority_rules(config.priorities))
        self.network = network_of(config.network, shared)
        self._config = config
        self._slowed: set[MqttConnection] = set()

    async def start(self) -> None:
        """Listens. Raises UserError where the port, the certificate or the data folder cannot be used."""
        self.network.open(self.name)
        try:
            await super().start()
        except UserError:
            await self.network.close()
            raise

    async def close(self) -> None:
        """As every listener for connections; wills of clients that said no goodbye are recorded too."""
        if self.is_listening:
            await super().close()
            await self.network.close()

    def way(self, alias_key: str, alias: str) -> MqttWay | None:
        connections = [each for each in self.network.connections(alias_key, alias) if each in self.connections]
        return MqttWay(f"{alias_key}:{alias}", connections) if connections else None

    def recheck(self) -> None:
        """After a change of the registry: ends connections whose credential it no longer holds."""
        for connection in list(self.connections):
            if connection.grant is not None and not self.credentials.still_holds(connection.grant):
                connection.revoke()

    # for connections

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
        if self.rates.spend(connection.device, messages, self.wheel.now):
            return True
        self._slowed.add(connection)
        return False

    def left(self, connection: MqttConnection) -> None:
        self._slowed.discard(connection)
        super().left(connection)

    # ConnectionHub

    def _protocol(self, loop: asyncio.AbstractEventLoop) -> asyncio.Protocol:
        if self._config.transport == "tcp":
            return MqttConnection(self, loop)
        from edge.listeners.mqtt.websocket import WebSocketDoor  # the library only where it is wanted

        return WebSocketDoor(lambda: MqttConnection(self, loop), loop)

    async def _drain(self, within_s: float) -> None:
        await super()._drain(within_s)
        await self.network.store.flushed()

    def _part(self, connection: MqttConnection) -> None:
        connection.close(Reason.SERVER_SHUTTING_DOWN)

    async def _end(self) -> None:
        self.network.publish_waiting_wills()
        await self._drain(CLOSE_S)

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        super()._turn(loop)
        for connection in [each for each in self._slowed if self.rates.may_go_on(each.device, self.wheel.now)]:
            self._slowed.discard(connection)
            connection.release_rate()
        self.network.turn(self)


def make_listener(config: MqttConfig, shared: Shared) -> MqttListener:
    return MqttListener(config, shared)
