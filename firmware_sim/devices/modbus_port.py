"""A Modbus server over TCP, as the units behind one port share it: holding registers that are read.

    transaction (2 bytes) | protocol 0 (2) | length of what follows (2) | unit (1) | function (1) | data

Written apart from the gateway's side, which speaks by pymodbus.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Final, cast

READ_HOLDING: Final = 3
READ_MAX: Final = 125
"""Registers in one answer."""
PDU_BYTES_MAX: Final = 253
ILLEGAL_FUNCTION: Final = 1
ILLEGAL_ADDRESS: Final = 2
BUSY: Final = 6

_HEAD: Final = struct.Struct(">HHHB")
_READ: Final = struct.Struct(">BHH")

Reader = Callable[[int, int], bytes | int]
"""Address and count to the registers' bytes, or to the exception that there is instead."""


class ModbusPort:
    """Listens while there are units. A unit that is not there is not answered for, as on a line."""

    def __init__(self, host: str, port: int) -> None:
        self._place = (host, port)
        self._units: dict[int, Reader] = {}
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._opening = asyncio.Lock()

    async def add(self, unit: int, reader: Reader) -> None:
        """Raises OSError where the port cannot be had."""
        async with self._opening:
            if self._server is None:
                host, port = self._place
                self._server = await asyncio.get_running_loop().create_server(lambda: _Connection(self), host, port)
            self._units[unit] = reader

    def remove(self, unit: int) -> None:
        """With the last one, the port is closed."""
        self._units.pop(unit, None)
        if self._units or self._server is None:
            return
        self._server.close()
        self._server = None
        for connection in list(self._connections):
            connection.abort()

    def opened(self, connection: _Connection) -> None:
        self._connections.add(connection)

    def closed(self, connection: _Connection) -> None:
        self._connections.discard(connection)

    def answer(self, unit: int, request: bytes) -> bytes | None:
        """To what stands behind the unit; None: there is none."""
        reader = self._units.get(unit)
        if reader is None:
            return None
        function = request[0]
        if function != READ_HOLDING or len(request) != _READ.size:
            return bytes((function | 0x80, ILLEGAL_FUNCTION))
        _, address, count = _READ.unpack(request)
        found = reader(address, count) if 1 <= count <= READ_MAX else ILLEGAL_ADDRESS
        return bytes((function | 0x80, found)) if isinstance(found, int) else bytes((function, len(found))) + found


class _Connection(asyncio.Protocol):
    def __init__(self, port: ModbusPort) -> None:
        self._port = port
        self._rest = b""
        self._transport: asyncio.Transport

    def abort(self) -> None:
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have all of the interface, but are no subclasses of it.
        self._transport = cast(asyncio.Transport, transport)
        self._port.opened(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._port.closed(self)

    def data_received(self, data: bytes) -> None:
        self._rest += data
        while len(self._rest) >= _HEAD.size:
            transaction, protocol, length, unit = _HEAD.unpack_from(self._rest)
            if protocol or not 2 <= length <= PDU_BYTES_MAX + 1:
                self._transport.abort()
                return
            end = _HEAD.size - 1 + length
            if len(self._rest) < end:
                return
            request, self._rest = self._rest[_HEAD.size : end], self._rest[end:]
            answer = self._port.answer(unit, request)
            if answer is not None:
                self._transport.write(_HEAD.pack(transaction, 0, len(answer) + 1, unit) + answer)
