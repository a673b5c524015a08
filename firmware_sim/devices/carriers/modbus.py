"""Modbus over TCP: a unit whose registers hold the last measurement. It is polled, and never learns what becomes of
what was read."""

from __future__ import annotations

from collections.abc import Sequence

from firmware_sim.devices.carriers.carrier import Carrier
from firmware_sim.devices.modbus_port import BUSY, ILLEGAL_ADDRESS, ModbusPort
from firmware_sim.devices.orders import Answer
from firmware_sim.devices.outbox import Outgoing
from firmware_sim.devices.register_map import SEQ_ADDRESS
from firmware_sim.devices.surroundings import DeviceSettings


class ModbusCarrier(Carrier):
    makes_its_place = True

    _port: ModbusPort | None = None
    _registers = b""
    _has_ended = False

    @classmethod
    def is_answered(cls, settings: DeviceSettings) -> bool:
        return False

    async def open(self) -> None:
        """Listens, where no other unit of its port does so already."""
        identity, settings = self._identity, self._settings
        place = identity.host or settings.host, identity.port
        port = self._runtime.modbus_ports.setdefault(place, ModbusPort(*place))
        await port.add(identity.unit, self._read)
        self._port = port
        if self._has_ended:
            port.remove(identity.unit)
        else:
            self._stands()

    def send(self, messages: Sequence[Outgoing]) -> None:
        """The newest is what the registers hold from now on."""
        self._registers = messages[-1].payload

    def answer(self, answer: Answer, *, again: bool = False) -> None:
        raise AssertionError("a polled unit is told no commands")

    def close(self) -> None:
        self.abort("closed")

    def abort(self, reason: str) -> None:
        if self._has_ended:
            return
        self._has_ended = True
        self.is_up = False
        if self._port is not None:
            self._port.remove(self._identity.unit)
        self._runtime.loop.call_soon(lambda: self._owner.went_down(self, reason, refused=False))

    def _read(self, address: int, count: int) -> bytes | int:
        """Before anything was measured it is busy."""
        end = 2 * (address + count)
        if end > len(self._registers):
            return ILLEGAL_ADDRESS if self._registers else BUSY
        if address <= SEQ_ADDRESS < address + count:
            self._owner.fetched(self)
        return self._registers[2 * address : end]
