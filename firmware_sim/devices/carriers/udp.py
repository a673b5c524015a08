"""A datagram for each message, sent again until one comes back that says OK."""

from __future__ import annotations

from firmware_sim.devices.carriers.datagrams import DatagramCarrier
from firmware_sim.devices.carriers.turns import Item
from firmware_sim.devices.lines import frame_of, is_ok, ordered


class UdpCarrier(DatagramCarrier):
    usual_port = 5000

    def _transmit(self, item: Item) -> None:
        self._put(frame_of(item))
        self._expect(item, self._settings.resend_s)

    def _received(self, data: bytes) -> None:
        if is_ok(data):
            self._done()
            return
        order = ordered(data)
        answer = self._owner.told(self, order.command, order.id)
        if answer is not None:
            self.answer(answer)
