"""MQTT 3.1.1: CONNECT, pings, and a PUBACK for each message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from firmware_sim.devices.carriers.carrier import Owner
from firmware_sim.devices.carriers.stream import StreamCarrier
from firmware_sim.devices.orders import Answer
from firmware_sim.devices.outbox import Outgoing
from firmware_sim.devices.packets import (
    CONNECT_REFUSALS,
    DISCONNECT,
    PINGREQ,
    ConnAck,
    PacketReader,
    PubAck,
    SubAck,
    Told,
    encode_connect,
    encode_puback,
    encode_publish,
    encode_subscribe,
)
from firmware_sim.devices.roster import RosterDevice
from firmware_sim.devices.surroundings import DeviceSettings, Runtime

FILTER: Final = b"down/+/+"
"""So that the topic says name and id of a command: MQTT 3.1.1 has no other place for them."""


class MqttCarrier(StreamCarrier):
    usual_port = 1883

    def __init__(self, owner: Owner, identity: RosterDevice, settings: DeviceSettings, runtime: Runtime) -> None:
        super().__init__(owner, identity, settings, runtime)
        self._topic = settings.topic.encode()
        self._reader = PacketReader(subscribes=settings.obeys)
        self._watch_s = min(settings.keep_alive_s, settings.answer_s) / 4
        self._asked_s: float | None = None
        """When the CONNECT or PINGREQ was sent that has no answer yet."""

    @classmethod
    def is_answered(cls, settings: DeviceSettings) -> bool:
        return settings.qos > 0

    def send(self, messages: Sequence[Outgoing]) -> None:
        topic, packets = self._topic, []
        for one in messages:
            again = one.sends > 1 or one.is_repeat
            packets.append(encode_publish(topic, one.payload, packet_id=one.packet_id, again=again))
        self.write(b"".join(packets))

    def listen(self) -> None:
        self.write(encode_subscribe(FILTER, 1))

    def answer(self, answer: Answer, *, again: bool = False) -> None:
        topic = f"up/response/{answer.command_id}".encode()
        self.write(encode_publish(topic, msgspec.json.encode(answer.body), packet_id=answer.packet_id, again=again))

    def _greet(self) -> None:
        identity, settings = self._identity, self._settings
        self.write(
            encode_connect(
                client_id=identity.name,
                user=identity.user or identity.name,
                password=identity.password,
                keep_alive_s=settings.keep_alive_s,
            )
        )
        self._asked_s = self._wrote_s

    def _received(self, data: bytes) -> None:
        acknowledged: list[int] = []
        for packet in self._reader.feed(data):
            if type(packet) is PubAck:
                acknowledged.append(packet.packet_id)
                continue
            if type(packet) is Told:
                self._told(packet)
                continue
            self._asked_s = None
            if type(packet) is SubAck and not packet.is_granted:
                self._refuse("the subscription to commands was refused")
            if type(packet) is ConnAck:
                self._begin(packet)
        if acknowledged:
            self._owner.acknowledged(self, acknowledged)

    def _begin(self, answer: ConnAck) -> None:
        if self.is_up:
            self._refuse("a second CONNACK")
        elif answer.return_code:
            self._refuse(CONNECT_REFUSALS.get(answer.return_code, f"refused with code {answer.return_code}"))
        else:
            self._stands()

    def _told(self, told: Told) -> None:
        levels = told.topic.split("/")
        answer = self._owner.told(self, levels[1], levels[2]) if len(levels) == 3 else None
        if told.packet_id:
            self.write(encode_puback(told.packet_id))
        if answer is not None:
            self.answer(answer)

    def _say_goodbye(self) -> None:
        self.write(DISCONNECT)

    def _asked_since_s(self) -> float | None:
        return self._asked_s

    def _idles(self, now_s: float) -> None:
        if self.is_up and self._asked_s is None and now_s - self._wrote_s >= self._settings.keep_alive_s / 2:
            self.write(PINGREQ)
            self._asked_s = now_s
