"""What goes to a device on one connection: messages by its session's outbox, retained ones, and commands."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Protocol

import msgspec

from edge.listeners.mqtt.network import MqttNetwork
from edge.listeners.way import DeviceGoneError
from protocols.messages import Command
from protocols.mqtt.connect import Connect
from protocols.mqtt.errors import NotSubscribedError, TooLargeError, WindowFullError
from protocols.mqtt.outbox import SEND_WINDOW, Message, Sending
from protocols.mqtt.packets import Ack, Subscription, encode_ack
from protocols.mqtt.properties import Properties
from protocols.mqtt.reasons import Reason
from protocols.mqtt.session import Match, Session
from protocols.mqtt.topics import DEVICE_SPACE
from protocols.mqtt.wire import LENGTH_MAX, PUBACK, PUBCOMP, PUBREC, PUBREL

RESPONSE_SPACE = "up/response"
"""Where a device answers a command: its id is the next level, or the correlation data."""

RECEIVE_MAX_DEFAULT = 65_535
"""Of a client that says nothing of it (MQTT 5, section 3.1.2.11.3)."""


class Writer(Protocol):
    def write(self, data: bytes) -> None:
        """Nothing, once the connection is closing."""
        ...


class Outgoing:
    __slots__ = ("_bytes_max", "_network", "_receive_max", "_session", "_waits", "_writer")

    def __init__(self, writer: Writer, session: Session, network: MqttNetwork, connect: Connect) -> None:
        self._writer = writer
        self._session = session
        self._network = network
        self._receive_max = connect.properties.receive_max or RECEIVE_MAX_DEFAULT
        self._bytes_max = connect.properties.packet_bytes_max or LENGTH_MAX
        self._waits: dict[Sending, list[asyncio.Future[None]]] = {}

    def resume(self) -> None:
        """After CONNACK: what was on its way, then what waits."""
        for packet in self._session.outbox.again(self._session.version, self._network.now_ms()):
            self._writer.write(packet)
        self.pump()

    def send_at_once(self, sending: Sending) -> None:
        """QoS 0."""
        packet = sending.encode(self._session.version, self._network.now_ms())
        if len(packet) <= self._bytes_max:  # else as if it were sent [MQTT-3.1.2-25]
            self._writer.write(packet)

    def send_retained(self, subscriptions: list[Subscription]) -> None:
        """For new subscriptions [MQTT-3.3.1-9]."""
        network = self._network
        for subscription in subscriptions:
            identifiers = (subscription.identifier,) if subscription.identifier else ()
            match = Match(subscription.qos, True, identifiers)
            for message in network.exchange.retained_for(subscription.topic_filter, network.now_ms()):
                network.offer(self._session, message, match, retain=True)

    def pump(self) -> None:
        """Sends what the client's window has room for."""
        session, store = self._session, self._network.store
        now_ms = self._network.now_ms()
        while True:
            out, expired = session.outbox.take(self._receive_max, now_ms)
            for sending in expired:
                self._finish(sending)
            dropped = False
            for sending in out:
                packet = sending.encode(session.version, now_ms)
                if len(packet) > self._bytes_max:  # as if it were sent [MQTT-3.1.2-25]
                    session.outbox.refuse(sending.packet_id)
                    self._finish(sending)
                    dropped = True
                    continue
                if session.number:
                    store.send(session, sending)
                if session.number and sending.qos == 2:
                    # Sent under another identifier after a crash, it would be another message to the client.
                    store.then(partial(self._writer.write, packet))
                else:
                    self._writer.write(packet)
            if not dropped:
                return

    def acked(self, ack: Ack) -> None:
        """PUBACK, PUBREC or PUBCOMP. One that nothing waits for is harmless: a client may answer twice."""
        session, store = self._session, self._network.store
        outbox = session.outbox
        if ack.kind == PUBREC and ack.reason < Reason.UNSPECIFIED:
            sending = outbox.receive(ack.packet_id)
            if sending is None:
                missing = Ack(PUBREL, ack.packet_id, Reason.PACKET_ID_NOT_FOUND)
                self._writer.write(encode_ack(missing, session.version))
                return
            release = encode_ack(Ack(PUBREL, ack.packet_id), session.version)
            if session.number:
                store.send(session, sending)
                store.then(lambda: self._writer.write(release))
            else:
                self._writer.write(release)
            return
        if ack.kind == PUBACK:
            done = outbox.acknowledge(ack.packet_id)
        elif ack.kind == PUBCOMP:
            done = outbox.complete(ack.packet_id)
        else:
            done = outbox.refuse(ack.packet_id)
        if done is not None:
            self._finish(done)
            self.pump()

    def command(self, command: Command, qos: int, expires_ms: int) -> asyncio.Future[None]:
        """To `down/<name>`, or to `down/<name>/<id>` where the device subscribes to that alone (`down/+/+`), as one of
        MQTT 3.1.1 does that wants to know the id. Done when the device has acknowledged it, at once where it subscribes
        with QoS 0. A command that is on its way to the session already, or that the session has, is not sent again.

        Raises NotSubscribedError, WindowFullError or TooLargeError; the future, DeviceGoneError.
        """
        session = self._session
        topic = f"{DEVICE_SPACE}/{command.name}"
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if command.id and command.id in session.done:
            future.set_result(None)
            return future
        sending = session.outbox.find(command.id) if command.id else None
        if sending is None:
            match = session.match(topic)
            if match is None:
                named = f"{topic}/{command.id}"
                match = session.match(named)
                if match is None:
                    raise NotSubscribedError(topic)
                topic = named
            properties = Properties(response_topic=RESPONSE_SPACE, correlation=command.id.encode())
            message = Message(topic, command.payload, qos, False, properties, expires_ms)
            sending = Sending(message, min(qos, match.qos), False, match.identifiers, command.id)
            size = len(msgspec.structs.replace(sending, packet_id=1 if sending.qos else 0).encode(session.version, 0))
            if size > self._bytes_max:
                raise TooLargeError(f"a packet of {size:,} bytes; the device takes {self._bytes_max:,}")
            if sending.qos == 0:
                self.send_at_once(sending)
                future.set_result(None)
                return future
            if not session.outbox.has_window(self._receive_max) or not session.outbox.offer(sending):
                window = min(SEND_WINDOW, self._receive_max)
                raise WindowFullError(f"{window} messages wait for the device's PUBACK")
            self.pump()
        self._waits.setdefault(sending, []).append(future)
        return future

    def lost(self) -> None:
        """The connection is over."""
        for futures in self._waits.values():
            for future in futures:
                if not future.done():
                    future.set_exception(DeviceGoneError("the connection ended before the device's PUBACK"))
        self._waits.clear()

    def _finish(self, sending: Sending) -> None:
        """The client has it, or is not to have it."""
        session = self._session
        if session.number:
            self._network.store.sent(session, sending)
        if sending.command_id:
            session.has_command(sending.command_id)
        for future in self._waits.pop(sending, ()):
            if not future.done():
                future.set_result(None)
