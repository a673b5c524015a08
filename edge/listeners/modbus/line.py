"""A Modbus line by pymodbus: one request at a time, over TCP or a serial port."""

from __future__ import annotations

import asyncio
import logging
import os
import struct
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException
from pymodbus.pdu import ModbusPDU

from edge.listeners.modbus.config import ModbusConfig
from edge.listeners.modbus.reads import Read
from edge.listeners.modbus.writes import Write
from edge.listeners.sockets import address
from protocols.codecs.registers import BITS, COILS, DISCRETE, HOLDING, INPUT

QUIET_S: Final = 0.05
"""After a timeout on a serial line, which does not say what an answer is to: one that comes late must not be taken for
the next one's. More than a whole answer takes at 57,600 bit/s."""

BUSY: Final = (5, 6)
"""Exceptions that pass by themselves: acknowledge, device busy."""

BEHIND_A_GATEWAY: Final = (10, 11)
"""Exceptions of a gateway between TCP and a serial line, which hears nothing of the unit."""

EXCEPTIONS: Final = {
    1: "illegal function",
    2: "illegal data address",
    3: "illegal data value",
    4: "device failure",
    5: "acknowledge",
    6: "device busy",
    7: "negative acknowledge",
    8: "memory parity error",
    10: "gateway path unavailable",
    11: "gateway target does not respond",
}
"""Modbus application protocol, section 7."""

_PARITIES: Final = {"even": "E", "odd": "O", "none": "N"}


class LineError(Exception):
    """The line itself is not there: the adapter, the port, the connection."""


class UnitSilentError(Exception):
    """No answer; of a write, nobody knows whether it was carried out."""


class UnitRefusedError(Exception):
    """The unit answered by an exception."""

    def __init__(self, code: int) -> None:
        super().__init__(f"{EXCEPTIONS.get(code, 'exception')} ({code})")
        self.code = code


class Line:
    def __init__(self, config: ModbusConfig) -> None:
        self.place = config.serial or address(config.host, config.port)
        self._config = config
        # pymodbus says each timeout as an error; here it is counted, and told once.
        logging.getLogger("pymodbus").setLevel(logging.CRITICAL)
        common: dict[str, Any] = {"timeout": config.timeout_s, "retries": 0, "reconnect_delay": 0}
        self._client: AsyncModbusSerialClient | AsyncModbusTcpClient
        if config.serial:
            self._client = AsyncModbusSerialClient(
                config.serial,
                baudrate=config.baud,
                parity=_PARITIES[config.parity],
                stopbits=config.stop_bits,
                **common,
            )
        else:
            self._client = AsyncModbusTcpClient(config.host, port=config.port, **common)
        # There is no other place between pymodbus' transport and its reading of frames.
        self._client.ctx.callback_data = _forbearing(self._client.ctx.callback_data)  # type: ignore[method-assign]

    @property
    def is_connected(self) -> bool:
        return self._client.connected

    async def connect(self) -> None:
        """Raises LineError."""
        if self._config.serial:
            _check_port(self._config.serial)
        try:
            connected = await self._client.connect()
        except (OSError, ValueError) as error:
            raise LineError(str(error)) from None
        if not connected:
            what = "cannot be opened; another program may have it" if self._config.serial else "cannot be reached"
            raise LineError(what)

    def close(self) -> None:
        self._client.close()

    async def read(self, unit: int, read: Read, *, attempts: int) -> bytes:
        """As a block holds it: two bytes a register, one byte a coil. Raises LineError, UnitSilentError or
        UnitRefusedError."""
        client = self._client
        ask = {
            COILS: client.read_coils,
            DISCRETE: client.read_discrete_inputs,
            HOLDING: client.read_holding_registers,
            INPUT: client.read_input_registers,
        }[read.function]
        for attempt in range(attempts):
            try:
                answer = await self._asked(partial(ask, read.address, count=read.count, device_id=unit))
            except UnitRefusedError as error:
                if error.code not in BUSY or attempt == attempts - 1:
                    raise
            except UnitSilentError:
                if attempt == attempts - 1:
                    raise
            else:
                found = answer.bits[: read.count] if read.function in BITS else answer.registers
                if len(found) == read.count:
                    return bytes(found) if read.function in BITS else struct.pack(f">{read.count}H", *found)
            await asyncio.sleep(QUIET_S)
        raise UnitSilentError(f"its answers are of another length than the {read.count} that were asked for")

    async def write(self, unit: int, write: Write) -> None:
        """Once. Raises as `read` does."""
        client, register = self._client, write.register
        if register.function == COILS:
            request = partial(client.write_coil, register.address, bool(write.words[0]), device_id=unit)
        elif len(write.words) == 1:
            request = partial(client.write_register, register.address, write.words[0], device_id=unit)
        else:
            request = partial(client.write_registers, register.address, list(write.words), device_id=unit)
        await self._asked(request)

    async def _asked(self, request: Callable[[], Awaitable[ModbusPDU]]) -> ModbusPDU:
        try:
            answer = await request()
        except ModbusException:
            if not self.is_connected:
                raise LineError("the connection ended") from None
            if self._config.serial:
                await asyncio.sleep(QUIET_S)
            raise UnitSilentError(f"no answer within {self._config.timeout_s:g} s") from None
        except OSError as error:
            raise LineError(str(error)) from None
        if answer.isError():
            if answer.exception_code in BEHIND_A_GATEWAY:
                raise UnitSilentError(EXCEPTIONS[answer.exception_code])
            raise UnitRefusedError(answer.exception_code)
        return answer


def _forbearing(read: Callable[..., int]) -> Callable[..., int]:
    """pymodbus raises where it is told what came, and asyncio ends the line for that, with all units on it. What is no
    answer is passed over instead: who asked for one waits in vain."""

    def read_on(data: bytes, addr: tuple[Any, ...] | None = None) -> int:
        try:
            return read(data, addr)
        except ModbusException:
            return len(data)

    return read_on


def _check_port(path: str) -> None:
    """Raises LineError for what pymodbus would not say more exactly."""
    if not os.path.exists(path):
        raise LineError("there is no such port; is the adapter plugged in?")
    if not os.access(path, os.R_OK | os.W_OK):
        raise LineError("the port may not be opened by this user, who is to be in its group, often dialout")
