"""One connection to a broker: paho-mqtt under the event loop, with acknowledgements by hand.

A connection is used once; what was published and not acknowledged when it ends is the caller's to send again. Messages
are asked for with QoS 1: paho-mqtt answers those of QoS 2 before anybody has them on disk.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from typing import Any, Final, Protocol

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge.listeners.broker.config import BrokerConfig
from edge.listeners.filling import Owed
from edge.listeners.listener import ListenerCounters
from protocols.limits import MQTT_PACKET_BYTES_MAX

ANSWER_S: Final = 10.0
"""For a broker to accept a connection or a subscription."""

CONNECT_S: Final = 5.0
"""For TCP and TLS."""

READS_MAX: Final = 64
"""Packets read at a time: 2 ms of work, and then others have their turn."""

_RETAIN_IF_NEW: Final = 1
_RETAIN_NEVER: Final = 2


class BrokerError(Exception):
    """No connection, or none any more; its text is for people."""


class Taker(Protocol):
    """Who gets what the broker delivers."""

    counters: ListenerCounters

    def take(self, connection: BrokerConnection, message: paho.MQTTMessage) -> None:
        """With QoS 1, it is to be acknowledged: by the collector, or by `acknowledge`."""
        ...


class BrokerConnection:
    """A Waiter of the collector."""

    def __init__(self, config: BrokerConfig, client_id: str, context: ssl.SSLContext | None, taker: Taker) -> None:
        self._config = config
        self._taker = taker
        self._loop = asyncio.get_running_loop()
        self._is_5 = config.protocol == "5"
        client = self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id,
            protocol=MQTTProtocolVersion.MQTTv5 if self._is_5 else MQTTProtocolVersion.MQTTv311,
            clean_session=None if self._is_5 else False,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.connect_timeout = CONNECT_S
        if config.user:
            client.username_pw_set(config.user, config.password or None)
        if context is not None:
            client.tls_set_context(context)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_socket_close = self._on_socket_close
        client.on_socket_register_write = self._on_register_write
        client.on_socket_unregister_write = self._on_unregister_write
        self.lost: asyncio.Future[str] = self._loop.create_future()
        """Why the connection ended."""
        self._accepted: asyncio.Future[bool] = self._loop.create_future()
        self._subscribed: asyncio.Future[list[ReasonCode]] = self._loop.create_future()
        self._published: dict[int, asyncio.Future[None]] = {}
        self._fd = -1  # while the loop watches it
        self._paused = False

    async def open(self) -> bool:
        """Whether the broker had kept the session. Raises BrokerError."""
        config = self._config
        settings: dict[str, Any] = {}
        if self._is_5:
            properties = _properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = config.session_s
            properties.ReceiveMaximum = config.inflight_max
            properties.MaximumPacketSize = MQTT_PACKET_BYTES_MAX
            settings = {"clean_start": False, "properties": properties}

        def connect() -> None:  # blocks while it looks up the name, connects and shakes hands
            self._client.connect(config.host, config.port, config.keep_alive_s, **settings)

        try:
            await self._loop.run_in_executor(None, connect)
        except ssl.SSLError as error:
            raise BrokerError(f"TLS: {error}") from None
        except (OSError, ValueError) as error:
            raise BrokerError(f"cannot be reached: {getattr(error, 'strerror', '') or error}") from None
        sock = self._client.socket()
        if sock is None:
            raise BrokerError("cannot be reached")
        self._fd = sock.fileno()
        self._loop.add_reader(self._fd, self._read)
        if self._client.want_write():
            self._loop.add_writer(self._fd, self._write)
        return bool(await self._answer(self._accepted, "did not answer the CONNECT"))

    async def subscribe(self, filters: Sequence[str], *, retained: bool) -> list[str]:
        """The filters that the broker does not allow. Raises BrokerError."""
        if self._is_5:
            handling = _RETAIN_IF_NEW if retained else _RETAIN_NEVER
            options = SubscribeOptions(qos=1, retainHandling=handling)
            self._client.subscribe([(each, options) for each in filters])
        else:
            self._client.subscribe([(each, 1) for each in filters])
        codes = await self._answer(self._subscribed, "did not answer the SUBSCRIBE")
        return [each for each, code in zip(filters, codes, strict=False) if code.value >= 0x80]

    async def _answer(self, future: asyncio.Future[Any], otherwise: str) -> Any:
        try:
            async with asyncio.timeout(ANSWER_S):
                await asyncio.wait((future, self.lost), return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            raise BrokerError(otherwise) from None
        if future.done():
            return future.result()
        raise BrokerError(self.lost.result())

    def acknowledge(self, message_id: int) -> None:
        self._client.ack(message_id, 1)

    # Waiter; tokens are message ids

    def recorded(self, owed: Owed) -> None:
        self._taker.counters.recorded += owed.rows
        if not self.lost.done():
            for token in owed.tokens:
                self.acknowledge(int.from_bytes(token, "big"))

    def refused(self, owed: Owed, code: str) -> None:
        """The broker sends what it has no acknowledgement of once more, but only to a new connection."""
        refused = self._taker.counters.refused
        refused[code] = refused.get(code, 0) + owed.rows
        if owed.tokens:
            self._end(f"was left, as records are not taken: {code}")

    def publish(self, topic: str, payload: bytes, command_id: str) -> asyncio.Future[None]:
        """Done when the broker has it; raises BrokerError where nobody knows."""
        properties = None
        if self._is_5:
            properties = _properties(PacketTypes.PUBLISH)
            properties.CorrelationData = command_id.encode()
        sent = self._client.publish(topic, payload, 1, properties=properties)
        future = self._published[sent.mid] = self._loop.create_future()
        return future

    def keep_alive(self) -> None:
        """Once a second."""
        self._client.loop_misc()

    def pause(self) -> None:
        """Stops reading, because too much waits."""
        self._paused = True
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)

    def resume(self) -> None:
        self._paused = False
        if self._fd >= 0:
            self._loop.add_reader(self._fd, self._read)

    def close(self) -> None:
        """Says goodbye, as far as that goes without waiting; the broker keeps the session."""
        self._client.disconnect()
        if self._fd >= 0 and self._client.want_write():
            self._write()
        self._forget()
        sock = self._client.socket()
        if sock is not None:
            sock.close()
        self._end("closed")

    def _end(self, why: str) -> None:
        if not self.lost.done():
            self.lost.set_result(why)
        for future in self._published.values():
            if not future.done():
                future.set_exception(BrokerError(why))
        self._published.clear()

    def _read(self) -> None:
        """paho-mqtt takes a packet at a time; TLS may hold several that no further event tells of."""
        try:
            for _ in range(READS_MAX):
                if self._paused or self._fd < 0:
                    return
                self._client.loop_read()
        except (OSError, ValueError) as error:  # a packet that cannot be read
            self._forget()
            self._end(f"sent what is no MQTT: {error}")

    def _write(self) -> None:
        try:
            self._client.loop_write()
        except OSError as error:
            self._forget()
            self._end(str(error))

    def _forget(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
            self._fd = -1

    # paho-mqtt's callbacks: in the event loop, but for those of the socket while `open` connects

    def _on_connect(self, _client: Any, _data: Any, flags: Any, code: ReasonCode, _properties: Any) -> None:
        if self._accepted.done():
            return
        if code.value == 0:
            self._accepted.set_result(bool(flags.session_present))
        else:
            self._end(f"refuses the gateway: {code}; see user, password and client_id")

    def _on_disconnect(self, _client: Any, _data: Any, flags: Any, code: ReasonCode, _properties: Any) -> None:
        if flags.is_disconnect_packet_from_server:
            self._end(f"ended the connection: {code}")
        else:
            self._end(f"the connection was lost: {code}")

    def _on_subscribe(self, _client: Any, _data: Any, _mid: int, codes: list[ReasonCode], _properties: Any) -> None:
        if not self._subscribed.done():
            self._subscribed.set_result(codes)

    def _on_message(self, _client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        self._taker.take(self, message)

    def _on_publish(self, _client: Any, _data: Any, mid: int, _code: ReasonCode, _properties: Any) -> None:
        future = self._published.pop(mid, None)
        if future is not None and not future.done():
            future.set_result(None)

    def _on_socket_close(self, _client: Any, _data: Any, _socket: Any) -> None:
        self._forget()

    def _on_register_write(self, _client: Any, _data: Any, _socket: Any) -> None:
        if self._fd >= 0:
            self._loop.add_writer(self._fd, self._write)

    def _on_unregister_write(self, _client: Any, _data: Any, _socket: Any) -> None:
        if self._fd >= 0:
            self._loop.remove_writer(self._fd)


def _properties(packet_type: int) -> Properties:
    return Properties(packet_type)  # type: ignore[no-untyped-call]
