"""The listener of a Modbus line: polls its units, records what they answer, writes what commands say."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

import msgspec

from edge.background import restarted
from edge.listeners.attendance import Attendance
from edge.listeners.collector import Collector
from edge.listeners.config import device_of
from edge.listeners.filling import Owed
from edge.listeners.listener import ListenerCounters, Shared
from edge.listeners.modbus.config import ModbusConfig, UnitConfig
from edge.listeners.modbus.line import Line, LineError, UnitRefusedError, UnitSilentError
from edge.listeners.modbus.reads import plan
from edge.listeners.modbus.schedule import Schedule
from edge.listeners.modbus.writes import ValueRefusedError, Write, write_of
from edge.listeners.refusals import Refusals, Refused
from edge.listeners.way import CommandRefusedError, DeviceAbsentError, DeviceGoneError
from protocols.codecs.registers import Block, encode_map, encode_reading
from protocols.errors import UNREADABLE
from protocols.messages import Command, Origin, Priority
from tidegate.logs import get_logger

RETRY_FIRST_S: Final = 1.0
RETRY_MAX_S: Final = 5.0
"""Between attempts to open the line: an adapter that is plugged in again is used soon."""

ABSENT_SHARE: Final = 10
"""A unit that does not answer is asked once, and again after ten times what that took: a tenth of the line's time."""

DRAIN_S: Final = 10.0
"""At close: for what was read to be recorded."""

WRITE: Final = "write"
"""Name of the command whose payload is an object of several registers; another's name is that of one register."""

TROUBLES_SHOWN_MAX: Final = 3

_log = get_logger("edge.modbus")


class Unit:
    """One device of the line."""

    def __init__(self, config: UnitConfig, line: ModbusConfig) -> None:
        self.config = config
        self.name = device_of(config.device)
        self.interval_s = config.interval_s or line.interval_s
        self.registers = [each.register for each in config.registers]
        self.writable = {each.name: each.register for each in config.registers if each.write}
        self.reads = plan(self.registers, read_max=config.read_max, gap_max=config.gap_max)
        self.map = encode_map(self.registers)
        self.origin = Origin(
            line.network, self.name.alias_key, self.name.alias, f"unit/{config.unit}", line.codec, line.name,
            Priority[line.priority.upper()],
        )  # fmt: skip
        self.is_heard = False
        """It answered the last poll."""
        self.is_silent = False
        """It did not."""
        self.trouble = ""

    def __str__(self) -> str:
        return f"unit {self.config.unit} ({self.config.device})"

    def payload(self, blocks: list[Block]) -> bytes | None:
        """None: a register is missing, and the bytes would say nothing."""
        if self.origin.codec == "registers":
            return encode_reading(blocks, self.map)
        parts = [next((p for block in blocks if (p := block.part(each)) is not None), None) for each in self.registers]
        return None if None in parts else b"".join(part for part in parts if part is not None)


class ModbusListener:
    """A Waiter of the collector, too."""

    kind = "modbus"
    port = 0

    def __init__(self, config: ModbusConfig, collector: Collector, attendance: Attendance) -> None:
        self.name = config.name
        self.network_id = config.network
        self.counters = ListenerCounters()
        self.refusals = Refusals(config.name)
        self._config = config
        self._collector = collector
        self._attendance = attendance
        self._line = Line(config)
        self._line_trouble = ""
        self._units = [Unit(unit, config) for unit in config.units]
        self._schedule: Schedule | None = None
        self._early: asyncio.Event = asyncio.Event()
        self._may_read: asyncio.Event = asyncio.Event()
        self._may_read.set()
        self._running: contextlib.AsyncExitStack | None = None

    @property
    def place(self) -> str:
        return self._line.place

    @property
    def is_listening(self) -> bool:
        return self._running is not None

    @property
    def trouble(self) -> str:
        if self._line_trouble:
            return f"{self.place}: {self._line_trouble}"
        troubles = [f"{unit}: {unit.trouble}" for unit in self._units if unit.trouble]
        more = len(troubles) - TROUBLES_SHOWN_MAX
        return "; ".join(troubles[:TROUBLES_SHOWN_MAX]) + (f"; and {more} more" if more > 0 else "")

    async def start(self) -> None:
        """The line, and the units on it, are waited for."""
        self._collector.attach(self)
        self._running = contextlib.AsyncExitStack()
        await self._running.enter_async_context(restarted(f"modbus {self.name}", self._run))

    async def close(self) -> None:
        if self._running is None:
            return
        running, self._running = self._running, None
        await running.aclose()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._collector.drained(), DRAIN_S)
        self._collector.detach(self)

    def recheck(self) -> None:
        """The configuration says who is on the line."""

    def way(self, alias_key: str, alias: str) -> ModbusWay | None:
        for unit in self._units:
            if (unit.name.alias_key, unit.name.alias) == (alias_key, alias):
                return ModbusWay(self, unit)
        return None

    # for the collector

    def pause(self) -> None:
        self._may_read.clear()

    def resume(self) -> None:
        self._may_read.set()

    def recorded(self, owed: Owed) -> None:
        self.counters.recorded += owed.rows

    def refused(self, owed: Owed, code: str) -> None:
        self.counters.refused[code] = self.counters.refused.get(code, 0) + owed.rows

    # for commands

    async def write(self, unit: Unit, writes: list[Write]) -> None:
        if not self._line.is_connected:
            raise DeviceAbsentError(self.trouble or f"{self.place} is not connected")
        done: list[str] = []
        try:
            for write in writes:
                await self._line.write(unit.config.unit, write)
                done.append(write.register.field.name)
        except LineError as error:
            raise DeviceGoneError(f"{self.place}: {error}") from None
        except UnitSilentError as error:
            raise DeviceGoneError(f"{unit}: {error}") from None
        except UnitRefusedError as error:
            written = f"; {', '.join(done)} was written before" if done else ""
            raise CommandRefusedError(f"{unit} refuses {write.register.field.name}: {error}{written}") from None
        if self._schedule is not None:  # what became of it is seen soon
            self._schedule.at_once(self._units.index(unit))
            self._early.set()

    # inside

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        self._schedule = schedule = Schedule([unit.interval_s for unit in self._units], loop.time())
        try:
            # An answer that comes with the cancellation hides it: pymodbus waits by asyncio.wait_for of Python 3.11.
            while self._running is not None:
                if not self._line.is_connected:
                    await self._connect()
                    schedule.catch_up(loop.time())
                place, due_s = schedule.next()
                if due_s > loop.time():
                    self._early.clear()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout_at(due_s):
                            await self._early.wait()
                    continue
                await self._may_read.wait()
                schedule.begin(place)
                unit, begun_s = self._units[place], loop.time()
                try:
                    await self._poll(unit)
                except LineError as error:
                    self._lost(str(error))
                ended_s = loop.time()
                again_s = ended_s + ABSENT_SHARE * (ended_s - begun_s) if unit.is_silent else 0.0
                missed = schedule.done(place, ended_s, not_before_s=again_s)
                if missed and not unit.is_silent:
                    self.refused(Owed([], missed, 0), "late")
        finally:
            self._line.close()

    async def _connect(self) -> None:
        """Opens the line, for as long as it takes."""
        wait_s = RETRY_FIRST_S
        while not self._line.is_connected:
            try:
                await self._line.connect()
            except LineError as error:
                self._lost(str(error))
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, RETRY_MAX_S)
                continue
            self.counters.connections_total += 1
            self._line_trouble = ""
            _log.info("line is open", listener=self.name, line=self.place)

    def _lost(self, why: str) -> None:
        if self._line_trouble != why:
            _log.warning("line is not there", listener=self.name, line=self.place, reason=why)
        self._line_trouble = why
        self._line.close()
        self.counters.connections = 0
        for unit in self._units:
            self._attend(unit, False, f"{self.place}: {why}")
            unit.is_silent = False

    async def _poll(self, unit: Unit) -> None:
        blocks: list[Block] = []
        trouble = ""
        attempts = 1 if unit.is_silent else 1 + self._config.retries
        silent = False
        for read in unit.reads:
            try:
                data = await self._line.read(unit.config.unit, read, attempts=attempts)
            except UnitSilentError as error:
                silent, trouble = not blocks, str(error)
                break  # the other registers would cost as long again
            except UnitRefusedError as error:
                trouble = f"registers {read.address} to {read.address + read.count - 1}: {error}"
                self._note(unit, f"exception_{error.code}", trouble)
                continue
            blocks.append(Block(read.function, read.address, data))
            self.counters.bytes_in += len(data)
        if silent and not unit.is_silent:
            self._note(unit, "unit_silent", trouble)
        self._attend(unit, not silent, trouble)
        unit.is_silent, unit.trouble = silent, trouble
        self.counters.connections = sum(each.is_heard for each in self._units)
        if blocks:
            payload = unit.payload(blocks)
            if payload is None:
                self.refused(Owed([], 1, 0), "incomplete")
            else:
                self._collector.add(unit.origin, [payload], self)

    def _attend(self, unit: Unit, is_heard: bool, why: str) -> None:
        """Says who came and who went."""
        if is_heard == unit.is_heard:
            return
        unit.is_heard = is_heard
        name = (self.name, self.network_id, unit.name.alias_key, unit.name.alias)
        if is_heard:
            self._attendance.connected(*name)
        else:
            self._attendance.disconnected(*name, why)

    def _note(self, unit: Unit, code: str, detail: str) -> None:
        time_ms = self._collector.clock.wall_ms()
        refused = Refused(time_ms, code, f"{unit}: {detail}", self.place, unit.config.device, b"")
        self.refusals.add(refused, now_s=asyncio.get_running_loop().time())


class ModbusWay:
    """To a unit; it has a command when it has answered the last of its writes."""

    confirms = True

    def __init__(self, listener: ModbusListener, unit: Unit) -> None:
        self._listener = listener
        self._unit = unit

    async def send(self, command: Command) -> None:
        try:
            value = msgspec.json.decode(command.payload)
        except UNREADABLE as error:
            raise CommandRefusedError(f"the payload is no JSON: {error}") from None
        values: Any = value if command.name == WRITE else {command.name: value}
        if type(values) is not dict or not values:
            raise CommandRefusedError(f"{WRITE} takes an object of registers and their values")
        await self._listener.write(self._unit, [self._write(name, each) for name, each in values.items()])

    def _write(self, name: str, value: Any) -> Write:
        register = self._unit.writable.get(name)
        if register is None:
            known = ", ".join(self._unit.writable) or "none"
            raise CommandRefusedError(f"{self._unit} has no register {name[:60]!r} to write; it has {known}")
        try:
            return write_of(register, value)
        except ValueRefusedError as error:
            raise CommandRefusedError(str(error)) from None


def make_listener(config: ModbusConfig, shared: Shared) -> ModbusListener:
    return ModbusListener(config, shared.collector, shared.attendance)
