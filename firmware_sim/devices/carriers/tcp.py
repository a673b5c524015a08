"""Lines over TCP: the login where one is wanted, then a message a line, which the gateway answers in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from firmware_sim.devices.carriers.carrier import Owner
from firmware_sim.devices.carriers.stream import StreamCarrier
from firmware_sim.devices.lines import END, LineReader, frame_of
from firmware_sim.devices.orders import Answer
from firmware_sim.devices.outbox import Outgoing
from firmware_sim.devices.packets import ProtocolError
from firmware_sim.devices.roster import RosterDevice
from firmware_sim.devices.surroundings import DeviceSettings, Runtime


class TcpCarrier(StreamCarrier):
    usual_port = 5000

    def __init__(self, owner: Owner, identity: RosterDevice, settings: DeviceSettings, runtime: Runtime) -> None:
        super().__init__(owner, identity, settings, runtime)
        self._reader = LineReader()
        self._sent: deque[int] = deque()
        """Packet ids of the frames without an answer, in order."""

    def send(self, messages: Sequence[Outgoing]) -> None:
        self._sent += [one.packet_id for one in messages]
        self.write(b"".join([one.payload + END for one in messages]))

    def answer(self, answer: Answer, *, again: bool = False) -> None:
        self._sent.append(answer.packet_id)
        self.write(frame_of(answer) + END)

    def _greet(self) -> None:
        identity = self._identity
        if identity.login:
            self.write(identity.login.replace("{name}", identity.name).encode() + END)
        self._stands()

    def _received(self, data: bytes) -> None:
        acknowledged, orders = self._reader.feed(data)
        if acknowledged > len(self._sent):
            raise ProtocolError("more frames are acknowledged than were sent")
        if acknowledged:
            self._owner.acknowledged(self, [self._sent.popleft() for _ in range(acknowledged)])
        for order in orders:
            answer = self._owner.told(self, order.command, order.id)
            if answer is not None:
                self.answer(answer)
