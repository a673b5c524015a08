"""The Modbus unit at the bench: one holding register that whoever likes writes, as a sensor would."""

from __future__ import annotations

from typing import Final

from firmware_sim.devices.roster import RosterDevice

TEMPERATURE: Final = 0
"""Address of the register, which holds tenths of a degree."""
TENTHS: Final = 10
FIRST: Final = 20 * TENTHS


def load_units() -> None:
    """What they are made of takes a third of a second to be imported: while nothing waits for it."""
    import pymodbus.server  # noqa: F401 - only to be there when BenchUnit imports it


class BenchUnit:
    """Listens from `start` to `stop`."""

    def __init__(self, device: RosterDevice) -> None:
        from pymodbus.server import ModbusTcpServer
        from pymodbus.simulator import DataType, SimData, SimDevice

        registers = [SimData(TEMPERATURE, values=[FIRST], datatype=DataType.REGISTERS)]
        self._server = ModbusTcpServer(SimDevice(device.unit, simdata=registers), address=(device.host, device.port))

    async def start(self) -> None:
        await self._server.serve_forever(background=True)

    async def stop(self) -> None:
        await self._server.shutdown()  # type: ignore[no-untyped-call]  # pymodbus has no types here
