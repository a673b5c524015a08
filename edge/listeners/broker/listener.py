"""The listener at an existing broker: subscribes, records, acknowledges; connects again, for as long as it runs."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from pathlib import Path
from typing import Final

import paho.mqtt.client as paho

from edge.background import restarted
from edge.identity import load_identity
from edge.listeners.broker.config import COMMAND, BrokerConfig
from edge.listeners.broker.connection import BrokerConnection, BrokerError
from edge.listeners.collector import Collector
from edge.listeners.config import priority_rules, tls_files
from edge.listeners.listener import ListenerCounters, Shared
from edge.listeners.mqtt.metadata import metadata_of
from edge.listeners.priorities import Priorities
from edge.listeners.refusals import DATA_BYTES_MAX, Refusals, Refused
from edge.listeners.sockets import address, client_context
from edge.listeners.way import CommandRefusedError, DeviceAbsentError, DeviceGoneError
from protocols.limits import PAYLOAD_BYTES_MAX, TOPIC_BYTES_MAX
from protocols.messages import Command, Origin, Priority
from protocols.mqtt.properties import Properties
from protocols.templates import Template, TemplateError, Templates
from sync.registry import Network, Registry
from tidegate.logs import get_logger

RETRY_FIRST_S: Final = 1.0
RETRY_MAX_S: Final = 10.0
"""Between attempts; each wait is up to a half longer, so that the gateways of a site do not return all at once."""

STEADY_S: Final = 60.0
"""A connection that lasted for so long was no mistake: the next attempt comes soon. One that ends earlier may be taken
over by another client with the same identifier, again and again."""

TICK_S: Final = 1.0
"""Between looks at the keep-alive."""

DRAIN_S: Final = 10.0
"""At close: for what came to be recorded and acknowledged."""

ORIGINS_MAX: Final = 4096
"""Remembered, so that the messages of a topic share one in a batch."""

_log = get_logger("edge.broker")


class BrokerListener:
    kind = "broker"
    port = 0

    def __init__(self, config: BrokerConfig, registry: Registry, collector: Collector, data_dir: Path) -> None:
        self.name = config.name
        self.network_id = config.network
        self.place = address(config.host, config.port)
        self.counters = ListenerCounters()
        self.refusals = Refusals(config.name)
        self.trouble = ""
        self._config = config
        self._registry = registry
        self._collector = collector
        self._data_dir = data_dir
        self._templates = Templates(config.templates)
        self._responses = Templates(config.responses)
        self._priorities = Priorities(priority_rules(config.priorities))
        self._down = Template(config.down.replace(COMMAND, "command")) if config.down else None
        self._origins: dict[str, Origin | None] = {}
        self._denied: list[str] = []  # topic filters, by the broker
        self._connection: BrokerConnection | None = None
        self._running: contextlib.AsyncExitStack | None = None
        self._context: ssl.SSLContext | None = None

    @property
    def is_listening(self) -> bool:
        return self._running is not None

    async def start(self) -> None:
        """Raises UserError where a file of TLS cannot be used. The broker is waited for."""
        config = self._config
        if config.tls:
            files = tls_files(config.tls_cert, config.tls_key, "")
            self._context = client_context(self.name, "tls_ca", config.tls_ca, files)
        self._collector.attach(self)
        self.trouble = f"connecting to {self.place}"
        self._running = contextlib.AsyncExitStack()
        await self._running.enter_async_context(restarted(f"broker {self.name}", self._run))

    async def close(self) -> None:
        if self._running is None:
            return
        running, self._running = self._running, None
        self.pause()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._collector.drained(), DRAIN_S)
        await running.aclose()
        self._collector.detach(self)

    def recheck(self) -> None:
        """The broker decides who may speak; but the network's alias key may have changed."""
        self._origins.clear()

    def way(self, alias_key: str, alias: str) -> BrokerWay | None:
        if self._down is None or self._down.alias_key != alias_key or not self.counters.connections:
            return None
        return BrokerWay(self, alias)

    # for the collector

    def pause(self) -> None:
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        if self._connection is not None and self._running is not None:
            self._connection.resume()

    # for connections

    def take(self, connection: BrokerConnection, message: paho.MQTTMessage) -> None:
        payload = bytes(message.payload)
        self.counters.bytes_in += len(payload)
        try:
            topic = message.topic
            code, detail = self._verdict(topic, len(payload), retained=message.retain)
        except UnicodeDecodeError:
            topic, code, detail = "", "topic_utf8", "the topic is no UTF-8"
        origin = None if code else self._origin(topic)
        if origin is not None:
            tokens = (message.mid.to_bytes(2, "big"),) if message.qos else ()
            self._collector.add(origin, [payload], connection, tokens, metadata=_metadata(message))
            return
        if not code:
            code, detail = "no_topic", f"{topic[:200]!r} fits no template"
        self._refuse(code, detail, payload)
        if message.qos:  # it would come again and again, and never be another
            connection.acknowledge(message.mid)

    async def publish(self, alias: str, command: Command) -> None:
        connection = self._connection
        if connection is None or not self.counters.connections:
            raise DeviceAbsentError(f"{self.name} is not connected to the broker")
        try:
            topic = Template(self._config.down.replace(COMMAND, command.name)).fill(alias)
        except TemplateError as error:
            raise CommandRefusedError(str(error)) from None
        try:
            await connection.publish(topic, command.payload, command.id)
        except BrokerError as error:
            raise DeviceGoneError(f"broker {self.place}: {error}") from None

    # inside

    async def _run(self) -> None:
        wait_s = RETRY_FIRST_S
        loop = asyncio.get_running_loop()
        subscribed = False
        while True:
            connected_s = loop.time()
            connection = self._connection = BrokerConnection(self._config, self._client_id(), self._context, self)
            try:
                kept = await connection.open()
                if not (kept and subscribed):
                    await self._subscribe(connection)
                    subscribed = True
                self._is_up(connection)
                await _until_lost(connection)
                why = connection.lost.result()
            except BrokerError as error:
                why = str(error)
            finally:
                self.counters.connections = 0
                self._connection = None
                connection.close()
            self._is_down(why)
            if loop.time() - connected_s > STEADY_S:
                wait_s = RETRY_FIRST_S
            await asyncio.sleep(wait_s * random.uniform(1.0, 1.5))
            wait_s = min(wait_s * 2, RETRY_MAX_S)

    async def _subscribe(self, connection: BrokerConnection) -> None:
        filters = dict.fromkeys(each.topic_filter for each in (*self._templates.all, *self._responses.all))
        denied = await connection.subscribe(list(filters), retained=self._config.retained)
        if len(denied) == len(filters):
            raise BrokerError(f"does not let {self._config.user or 'the gateway'} subscribe to {', '.join(denied)}")
        self._denied = denied

    def _is_up(self, connection: BrokerConnection) -> None:
        self.counters.connections = 1
        self.counters.connections_total += 1
        self.trouble = f"broker {self.place} does not allow {', '.join(self._denied)}" if self._denied else ""
        if self._collector.paused:
            connection.pause()
        _log.info("broker connected", listener=self.name, broker=self.place, denied=self._denied)

    def _is_down(self, why: str) -> None:
        trouble = f"broker {self.place} {why}"
        if trouble != self.trouble:
            _log.warning("broker not connected", listener=self.name, broker=self.place, reason=why)
        self.trouble = trouble

    def _client_id(self) -> str:
        if self._config.client_id:
            return self._config.client_id
        identity = load_identity(self._data_dir)
        if identity is None:
            return f"tidegate-{self.name}"
        return f"tidegate-{identity.enrolment.project_id}-{identity.enrolment.gateway_id}-{self.name}"

    def _verdict(self, topic: str, payload_bytes: int, *, retained: bool) -> tuple[str, str]:
        """Why a message is not taken, whatever its topic stands for: code and reason; both empty: it is."""
        if retained and not self._config.retained:
            return "retained", f"{topic[:200]!r} is from before, and `retained` is not set"
        if payload_bytes > PAYLOAD_BYTES_MAX:
            return "payload_too_large", f"{payload_bytes:,} bytes on {topic[:200]!r}; allowed are {PAYLOAD_BYTES_MAX:,}"
        if len(topic.encode()) > TOPIC_BYTES_MAX:
            return "topic_too_long", f"{topic[:200]!r}… has more than {TOPIC_BYTES_MAX} bytes"
        return "", ""

    def _origin(self, topic: str) -> Origin | None:
        """None: the topic fits no template."""
        if topic not in self._origins:
            if len(self._origins) >= ORIGINS_MAX:
                self._origins.clear()
            self._origins[topic] = self._made_origin(topic)
        return self._origins[topic]

    def _made_origin(self, topic: str) -> Origin | None:
        answer = self._responses.match(topic)
        name = answer or self._templates.match(topic)
        if name is None:
            return None
        codec, priority = self._config.codec, self._priorities.of(topic)
        if answer is not None:
            codec, priority = "response", Priority.EVENT
        network = self._registry.networks.get(self.network_id) or Network(self.network_id)
        alias_key = name.alias_key or network.alias_key
        return Origin(self.network_id, alias_key, name.alias, topic, codec, self.name, priority)

    def _refuse(self, code: str, detail: str, payload: bytes) -> None:
        refused = Refused(
            self._collector.clock.wall_ms(), code, detail, self.place, self._config.user, payload[:DATA_BYTES_MAX]
        )
        self.refusals.add(refused, now_s=asyncio.get_running_loop().time())


class BrokerWay:
    """By the device's topic at the broker, which has a command then; nobody knows whether the device does."""

    confirms = False

    def __init__(self, listener: BrokerListener, alias: str) -> None:
        self._listener = listener
        self._alias = alias

    async def send(self, command: Command) -> None:
        await self._listener.publish(self._alias, command)


def _metadata(message: paho.MQTTMessage) -> bytes:
    """What an MQTT 5 message says beside its payload."""
    found = message.properties
    if found is None:
        return b""
    return metadata_of(
        Properties(
            content_type=getattr(found, "ContentType", None),
            response_topic=getattr(found, "ResponseTopic", None),
            correlation=getattr(found, "CorrelationData", None),
            user=tuple(getattr(found, "UserProperty", ())),
        )
    )


async def _until_lost(connection: BrokerConnection) -> None:
    """Keeps it alive meanwhile."""
    while not connection.lost.done():
        connection.keep_alive()
        await asyncio.wait((connection.lost,), timeout=TICK_S)


def make_listener(config: BrokerConfig, shared: Shared) -> BrokerListener:
    return BrokerListener(config, shared.registry, shared.collector, shared.data_dir)
