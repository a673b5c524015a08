"""The serial listener: one port, which may come and go."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Final, cast

import serial
from serial.tools import list_ports
from serial_asyncio_fast import SerialTransport

from edge.listeners.answers import Answer
from edge.listeners.frames import FrameLine, rules_of
from edge.listeners.line_protocol import LineProtocol
from edge.listeners.lines import LineHub
from edge.listeners.listener import Shared
from edge.listeners.polls import Polls
from edge.listeners.stream_config import SerialConfig
from protocols.limits import PAYLOAD_BYTES_MAX
from protocols.templates import NOBODY
from tidegate.logs import get_logger

LOOK_S: Final = 1.0
"""How often an adapter that is not there is looked for."""

GATHER_S: Final = 0.025
"""All ports' frames are recorded together, so often. A line is slow anyway, and each sync has a price whatever it
holds: at 16 ports, a third of what they cost."""

CLOSE_S: Final = 2.0
WRITE_BYTES_MAX: Final = 2 * PAYLOAD_BYTES_MAX
"""Unsent bytes: a line that takes none (flow control) is opened anew."""

_PARITIES: Final = {
    "none": serial.PARITY_NONE,
    "even": serial.PARITY_EVEN,
    "odd": serial.PARITY_ODD,
    "mark": serial.PARITY_MARK,
    "space": serial.PARITY_SPACE,
}

_log = get_logger("edge.listener")


class SerialPort(LineProtocol):
    """An open port."""

    def __init__(self, hub: SerialListener, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._hub = hub

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_BYTES_MAX)
        hub = self._hub
        name = hub.rules.device if hub.rules.device != NOBODY else hub.payload_name()
        line = FrameLine(hub, self, hub.path, name, self._loop)
        hub.joined(line)
        self._begin(line)

    def data_received(self, data: bytes) -> None:
        line = self._line
        if line is None or not line.is_open:
            return
        before = line.frames
        line.receive(data)
        if line.frames != before:
            self._hub.polls.answered()

    def pause_writing(self) -> None:
        if self._line is not None:
            self._line.refuse("slow_reader", f"the line leaves more than {WRITE_BYTES_MAX:,} bytes unsent", b"")

    def connection_lost(self, exc: Exception | None) -> None:
        if self._line is not None:
            self._line.end()
            self._hub.left(self._line)
        super().connection_lost(exc)

    @property
    def takes_requests(self) -> bool:
        return self._line is not None and self._line.is_open and not self._line.is_held

    def cut(self) -> None:
        """Without what the device has not taken yet, if that is much: its flow control may never let it through."""
        if self._transport.get_write_buffer_size() > WRITE_BYTES_MAX:
            self._transport.abort()
        else:
            super().cut()

    def drop_output(self) -> None:
        """What the device does not take, as its flow control says, is not waited for."""
        opened = self._transport.get_extra_info("serial")
        if opened is not None:
            with contextlib.suppress(OSError):
                opened.reset_output_buffer()


class SerialListener(LineHub):
    """Frames from a serial port, and to it. Whatever noise there was, after a silence frames begin anew."""

    kind = "serial"
    port = 0
    connects = False

    def __init__(self, config: SerialConfig, shared: Shared) -> None:
        super().__init__(config, shared, rules_of(config, config.framing, silence_counts=True, gather_s=GATHER_S))
        self.path = config.port
        """Of the device file, as far as it is known."""
        self.polls = Polls(self, [(Answer(one.send), one.every_s, one.answer_s) for one in config.polls])
        self._config = config
        self._port: SerialPort | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def place(self) -> str:
        port = self._config.port
        return port if self.path == port else f"{port} ({self.path})"

    async def start(self) -> None:
        """Opens the port, or waits for it."""
        self._open()
        await self._attempt()
        self._task = asyncio.create_task(self._run(), name=f"listener {self.name}")

    async def close(self) -> None:
        if self._task is None:
            return
        task, self._task = self._task, None
        await self._drain()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        port = self._port
        if port is not None and not port.ended.done():
            port.cut()
            if not (await asyncio.wait([port.ended], timeout=CLOSE_S))[0]:
                port.drop_output()
        self._shut()

    def ask(self, request: bytes) -> bool:
        """Writes a request as it is; False: nobody is there to be asked."""
        port = self._port
        if port is None or not port.takes_requests:
            return False
        port.write(request)
        return True

    async def _run(self) -> None:
        """Until cancelled."""
        while True:
            if self._port is None:
                await asyncio.sleep(LOOK_S)
                await self._attempt()
                continue
            port = self._port
            polling = asyncio.create_task(self.polls.run())
            try:
                await asyncio.wait([port.ended])  # not by itself: to be cancelled must not end the future
            finally:
                polling.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await polling
            self._port, failure = None, port.ended.result()
            self.trouble = f"{self.path} is gone" + (f": {failure}" if failure is not None else "")
            _log.warning("serial port lost", listener=self.name, port=self.path, reason=str(failure or ""))

    async def _attempt(self) -> None:
        """Opens the port if it is there; `trouble` says why not."""
        loop = asyncio.get_running_loop()
        config = self._config
        path = await asyncio.to_thread(find_port, config.port)
        if path is None:
            self.trouble = f"{config.port} is not there; plug the adapter in"
            return
        self.path = path
        try:
            opened = serial.Serial(
                path,
                config.baud,
                config.data_bits,
                _PARITIES[config.parity],
                config.stop_bits,
                timeout=0,
                xonxoff=config.flow == "xonxoff",
                rtscts=config.flow == "rtscts",
                exclusive=True,
            )
        except (OSError, ValueError) as error:
            self.trouble = _cannot_open(path, error)
            return
        port = SerialPort(self, loop)
        SerialTransport(loop, port, opened)
        self._port = port
        self.trouble = ""
        _log.info("serial port open", listener=self.name, port=path)


def find_port(place: str) -> str | None:
    """The device file of a path or a `usb:VID:PID[:SERIAL]`; None: it is not there."""
    if not place.startswith("usb:"):
        return place if Path(place).exists() else None
    _, vendor, product, *number = place.split(":", 3)
    for port in sorted(list_ports.comports(), key=lambda port: port.device):
        if port.vid == int(vendor, 16) and port.pid == int(product, 16) and number in ([], [port.serial_number]):
            return str(port.device)
    return None


def _cannot_open(path: str, error: OSError | ValueError) -> str:
    number = getattr(error, "errno", None)
    if number == 13:
        return f"{path}: not allowed; add the gateway's user to the group that owns it: usermod -a -G dialout USER"
    if number in (11, 16):
        return f"{path} is in use by another process; end it (fuser {path} names it)"
    return f"cannot open {path}: {error}"


def make_listener(config: SerialConfig, shared: Shared) -> SerialListener:
    return SerialListener(config, shared)
