"""An MQTT client for tests that speaks in packets, of either version."""

from __future__ import annotations

from typing import Any, TypeVar

from protocols.mqtt.connect import Connack, Connect, Will, decode_connack, encode_connect
from protocols.mqtt.packets import (
    Ack,
    Disconnect,
    Publish,
    Subscribe,
    Subscription,
    Unsubscribe,
    decode_ack,
    decode_disconnect,
    decode_publish,
    decode_suback,
    encode_ack,
    encode_disconnect,
    encode_publish,
    encode_subscribe,
    encode_unsubscribe,
)
from protocols.mqtt.properties import In, Properties
from protocols.mqtt.reasons import Reason
from protocols.mqtt.wire import (
    CONNACK,
    DISCONNECT,
    PINGREQ_PACKET,
    PINGRESP,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SUBACK,
    UNSUBACK,
    V5,
    remaining_length,
)
from tests.edge.listeners.mqtt_world import Client

T = TypeVar("T")
_ACKS = (PUBACK, PUBREC, PUBREL, PUBCOMP)


class Packets:
    """`says` sends; `hears` gives the next packet, decoded."""

    def __init__(self, client: Client, version: int) -> None:
        self.client = client
        self.version = version
        self.connack = Connack(Reason.SUCCESS)

    @classmethod
    async def connect(
        cls,
        port: int,
        client_id: str = "c",
        *,
        clean: bool = True,
        user: str = "pump",
        password: str = "pump-secret",
        version: int = V5,
        will: Will | None = None,
        keep_alive_s: int = 0,
        **properties: Any,
    ) -> Packets:
        """Logged in, or refused: `connack` says."""
        made = cls(await Client.open(port), version)
        connect = Connect(
            client_id, clean, keep_alive_s, user, password.encode(), will, version, Properties(**properties)
        )
        made.client.writer.write(encode_connect(connect))
        made.connack = await made.hears(Connack)
        return made

    def says(self, packet: Publish | Ack | Subscribe | Unsubscribe | Disconnect) -> None:
        match packet:
            case Publish():
                data = encode_publish(packet, self.version)
            case Ack():
                data = encode_ack(packet, self.version)
            case Subscribe():
                data = encode_subscribe(packet, self.version)
            case Unsubscribe():
                data = encode_unsubscribe(packet, self.version)
            case Disconnect():
                data = encode_disconnect(packet, self.version)
        self.client.writer.write(data)

    async def hears(self, kind: type[T]) -> T:
        """The next packet, which must be of this kind."""
        packet = await self.next()
        assert isinstance(packet, kind), packet
        return packet

    async def next(self) -> object:
        data = await self.client.next()
        found = remaining_length(data, 1)
        assert found is not None
        first, body = data[0], data[found[1] :]
        if first == CONNACK:
            return decode_connack(body, self.version)
        if first & 0xF0 == PUBLISH:
            return decode_publish(first, body, self.version, In.SERVER_PUBLISH)
        if first in _ACKS:
            return decode_ack(first, body, self.version)
        if first == SUBACK:
            return decode_suback(body, self.version)[1]
        if first == UNSUBACK:
            return list(body[3:])
        if first == DISCONNECT:
            return decode_disconnect(body, self.version, by_server=True)
        assert first == PINGRESP, data
        return PINGRESP

    async def subscribes(self, *filters: Subscription | str, identifier: int = 0) -> list[int]:
        """Plain texts with QoS 2. The codes that are answered."""
        wanted = tuple(Subscription(each, 2) if isinstance(each, str) else each for each in filters)
        properties = Properties(subscription_ids=(identifier,)) if identifier else Properties()
        self.says(Subscribe(77, wanted, properties))
        return await self.hears(list)

    async def publishes(self, topic: str, payload: bytes, qos: int = 1, packet_id: int = 1, **rest: Any) -> None:
        """Until the server has it."""
        self.says(Publish(topic, payload, qos, packet_id if qos else 0, **rest))
        if qos == 1:
            assert await self.hears(Ack) == Ack(PUBACK, packet_id)
        elif qos == 2:
            assert await self.hears(Ack) == Ack(PUBREC, packet_id)
            self.says(Ack(PUBREL, packet_id))
            assert await self.hears(Ack) == Ack(PUBCOMP, packet_id)

    async def is_quiet(self) -> bool:
        """Nothing has come before the answer to a ping."""
        self.client.writer.write(PINGREQ_PACKET)
        return await self.next() == PINGRESP

    async def disconnects(self, reason: Reason = Reason.SUCCESS, **properties: Any) -> None:
        self.says(Disconnect(reason, Properties(**properties)))
        await self.client.ended()

    async def is_lost(self) -> None:
        """Without a word."""
        await self.client.close()
