"""Units as pymodbus plays them: over TCP, or RTU on one end of a pair of pseudo-terminals that socat makes."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from pymodbus import FramerType
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from tests.contract.nats_server import free_port

ANSWER_S = 10.0
"""For what comes within milliseconds: long enough for a busy machine."""


def unit(number: int, temperature: int = 215) -> SimDevice:
    """Holding registers 0 to 9: temperature, setpoint 200, 1.5 as a float, energy 131,073 with its low half first, the
    text `pump`. Input register 5: 7. Coils 0 to 15: the second is on; discrete inputs 0 to 15: the first."""
    words = [
        temperature,
        200,
        *struct.unpack(">2H", struct.pack(">f", 1.5)),
        1,
        2,
        *struct.unpack(">2H", b"pump"),
        0,
        0,
    ]
    return SimDevice(
        number,
        simdata=(
            [SimData(0, values=[False, True, *[False] * 14], datatype=DataType.BITS)],
            [SimData(0, values=[True, *[False] * 15], datatype=DataType.BITS)],
            [SimData(0, values=words, datatype=DataType.REGISTERS)],
            [SimData(5, values=7, datatype=DataType.REGISTERS)],
        ),
    )


def _all_but_missing(units: Sequence[SimDevice], place: int) -> Callable[[bool, bytes], bytes]:
    """pymodbus answers for units that there are not; on a real line nobody does. `place`: of the unit in a frame."""
    there = {unit.id for unit in units}
    return lambda sending, frame: frame if not sending or frame[place] in there else b""


class TcpUnits:
    def __init__(self, *units: SimDevice) -> None:
        self.port = free_port()
        self._units = list(units)
        self._server: ModbusTcpServer | None = None

    async def start(self) -> None:
        self._server = ModbusTcpServer(
            self._units, address=("127.0.0.1", self.port), trace_packet=_all_but_missing(self._units, 6)
        )
        await self._server.serve_forever(background=True)

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.shutdown()
            self._server = None

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls, *units: SimDevice) -> AsyncIterator[TcpUnits]:
        made = cls(*units)
        await made.start()
        try:
            yield made
        finally:
            await made.stop()


@contextlib.asynccontextmanager
async def cable(folder: Path) -> AsyncIterator[tuple[Path, Path]]:
    """Two ports that are connected: the gateway's and the units'. They are gone afterwards, as an adapter is."""
    program = shutil.which("socat")
    assert program is not None, "socat is missing: apt-get install socat"
    ends = folder / "gateway.tty", folder / "units.tty"
    process = await asyncio.create_subprocess_exec(program, *(f"pty,raw,echo=0,link={end}" for end in ends))
    try:
        async with asyncio.timeout(ANSWER_S):
            while not all(end.exists() for end in ends):
                await asyncio.sleep(0.01)
        yield ends
    finally:
        process.terminate()
        await process.wait()


@contextlib.asynccontextmanager
async def rtu_units(port: Path, units: Sequence[SimDevice]) -> AsyncIterator[None]:
    server = ModbusSerialServer(
        list(units),
        framer=FramerType.RTU,
        port=str(port),
        baudrate=19_200,
        trace_packet=_all_but_missing(units, 0),
    )
    await server.serve_forever(background=True)
    try:
        yield
    finally:
        await server.shutdown()
