"""What listeners for lines of frames share: which lines there are, whose they are, and how they end."""

from __future__ import annotations

import asyncio
import contextlib
from typing import ClassVar, Final

from edge.listeners.command_form import framed
from edge.listeners.frames import REJECTS_TOLD_PER_S, FrameLine, FrameRules
from edge.listeners.listener import ListenerCounters, Shared
from edge.listeners.refusals import Refusals
from edge.listeners.stream_config import FramedConfig
from edge.listeners.way import CommandRefusedError, DeviceAbsentError
from edge.listeners.wheel import DeadlineWheel
from protocols.framing.base import FrameError
from protocols.messages import Command
from protocols.templates import Name

TICK_S: Final = 1.0

DRAIN_S: Final = 10.0
"""At close: for what devices sent to be recorded and acknowledged."""


class LineWay:
    """To a device at the other end of a line; nothing says that it has it, but its own answer."""

    confirms = False

    def __init__(self, line: FrameLine, form: str) -> None:
        self._line = line
        self._form = form

    async def send(self, command: Command) -> None:
        if not self._line.is_open:
            raise DeviceAbsentError("its line has ended")
        try:
            self._line.send(framed(command, self._form))
        except FrameError as error:
            raise CommandRefusedError(f"no frame can hold it: {error}") from None


class LineHub:
    """The part of a Listener that is the same for TCP and serial ports."""

    connects: ClassVar = True
    """Whether a line that is open means that its device is there."""

    def __init__(self, config: FramedConfig, shared: Shared, rules: FrameRules) -> None:
        self.name = config.name
        self.network_id = config.network
        self.collector = shared.collector
        self.counters = ListenerCounters()
        self.refusals = Refusals(config.name)
        self.rules = rules
        self.wheel = DeadlineWheel()
        self.paused = False
        self.is_listening = False
        self.trouble = ""
        self.lines: set[FrameLine] = set()
        self._registry = shared.registry
        self._attendance = shared.attendance
        self._by_device: dict[Name, list[FrameLine]] = {}
        self._tick: asyncio.TimerHandle | None = None
        self._told = 0

    def way(self, alias_key: str, alias: str) -> LineWay | None:
        lines = self._by_device.get(Name(alias_key, alias))
        return LineWay(lines[-1], self.rules.form) if lines else None

    def recheck(self) -> None:
        """Nobody has a credential that the registry could no longer hold."""

    def payload_name(self) -> Name:
        """Of a device that only its payloads name."""
        network = self._registry.networks.get(self.network_id)
        return Name("serial" if network is None else network.alias_key, "")

    # for lines

    def joined(self, line: FrameLine) -> None:
        self.lines.add(line)
        self.counters.connections = len(self.lines)
        self.counters.connections_total += 1
        self.named(line)

    def named(self, line: FrameLine) -> None:
        if line.name is not None and line.name.alias:
            self._by_device.setdefault(line.name, []).append(line)
            if self.connects:
                self._attendance.connected(self.name, self.network_id, line.name.alias_key, line.name.alias)

    def left(self, line: FrameLine) -> None:
        if line not in self.lines:
            return
        self.lines.discard(line)
        self.counters.connections = len(self.lines)
        if line.name is not None and line in (lines := self._by_device.get(line.name, [])):
            lines.remove(line)
            if not lines:
                del self._by_device[line.name]
            if self.connects:
                device = (line.name.alias_key, line.name.alias)
                self._attendance.disconnected(self.name, self.network_id, *device, line.parting)

    def tells_reject(self) -> bool:
        self._told += 1
        return self._told <= REJECTS_TOLD_PER_S

    # for the collector

    def pause(self) -> None:
        self.paused = True
        for line in self.lines:
            line.hold()

    def resume(self) -> None:
        if not self.is_listening:
            return  # closing: nothing more is read
        self.paused = False
        for line in self.lines:
            line.release()

    # inside

    def _open(self) -> None:
        self.is_listening = True
        self.paused = self.collector.paused
        self.collector.attach(self)
        self._turn(asyncio.get_running_loop())

    async def _drain(self) -> None:
        """Takes no more, and waits until what came is recorded and answered."""
        self.is_listening = False
        self.pause()
        for line in self.lines:
            line.parting = "the gateway stops"
            line.hand_over()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.collector.drained(), DRAIN_S)

    def _shut(self) -> None:
        if self._tick is not None:
            self._tick.cancel()
        self.collector.detach(self)

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        self._tick = loop.call_later(TICK_S, self._turn, loop)
        self._told = 0
        self.wheel.turn()
