"""Frames over serial ports: pseudo-terminals, with socat as the device at the other end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import tty
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from edge.listeners import serial as module
from edge.listeners.serial import SerialListener, find_port
from edge.listeners.stream_config import PollConfig, SerialConfig
from protocols.framing.spec import FramingSpec
from protocols.messages import Origin
from tests.edge.listeners.frame_world import ANSWER_S, FrameWorld, restart, until


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FrameWorld:
    monkeypatch.setattr(module, "LOOK_S", 0.01)
    return FrameWorld(tmp_path)


def config(port: Path | str, **settings: Any) -> SerialConfig:
    given: dict[str, Any] = {"open": True, "device": "serial:7", "ack": "OK {count}\n", "baud": 115_200}
    return SerialConfig("meter", "quay", port=str(port), **(given | settings))


class Device:
    """The other end of a port: a descriptor that a test reads and writes."""

    def __init__(self, path: Path) -> None:
        self._end, port = pty.openpty()
        tty.setraw(port)
        os.set_blocking(self._end, False)
        self._port = port
        self._path = path
        path.symlink_to(os.ttyname(port))
        self._came = b""

    def send(self, data: bytes) -> None:
        assert os.write(self._end, data) == len(data)

    async def next(self, end: bytes = b"\n") -> bytes:
        """Up to `end`, which is included."""

        def came() -> bool:
            with contextlib.suppress(BlockingIOError):
                self._came += os.read(self._end, 65_536)
            return end in self._came

        await until(came)
        found, _, self._came = self._came.partition(end)
        return found + end

    def unplug(self) -> None:
        self._path.unlink()
        os.close(self._port)
        os.close(self._end)


class Plugged(NamedTuple):
    path: Path
    device: Device


@pytest.fixture
def plugged(tmp_path: Path) -> Plugged:
    path = tmp_path / "ttyUSB0"
    return Plugged(path, Device(path))


@contextlib.asynccontextmanager
async def socat(path: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A port whose device is this program's input and output."""
    process = await asyncio.create_subprocess_exec(
        "socat", "-", f"PTY,link={path},rawer", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        await until(path.exists)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
        process._transport.close()  # type: ignore[attr-defined]


async def test_socat_is_answered_once_its_line_is_on_disk(world: FrameWorld, tmp_path: Path) -> None:
    path = tmp_path / "ttyUSB0"
    world.bus.hold()
    async with world.listening(SerialListener, config(path)) as listener:
        assert listener.trouble == f"{path} is not there; plug the adapter in"
        assert listener.is_listening
        async with socat(path) as device:
            assert device.stdin is not None
            assert device.stdout is not None
            await until(lambda: listener.counters.connections == 1)
            assert listener.trouble == ""
            device.stdin.write(b"21.5\r\n")
            await world.bus.reached(1)
            assert listener.counters.recorded == 0
            world.bus.release()
            assert await device.stdout.readline() == b"OK 1\n"
            assert world.bus.records[0].origin == Origin("quay", "serial", "7", "", "", "meter")
            way = listener.way("serial", "7")
            assert way is not None
            assert not way.confirms
            await way.send(restart())
            assert await device.stdout.readline() == b'{"command":"restart","id":"c1","payload":"now"}\n'
        await until(lambda: listener.counters.connections == 0)
        await until(lambda: "is gone" in listener.trouble or "is not there" in listener.trouble)
        assert listener.way("serial", "7") is None
        async with socat(path) as device:
            assert device.stdin is not None
            assert device.stdout is not None
            await until(lambda: listener.counters.connections == 1)
            device.stdin.write(b"21.6\n")
            assert await device.stdout.readline() == b"OK 1\n"
    assert world.payloads == [b"21.5", b"21.6"]
    assert (listener.kind, listener.place, listener.port) == ("serial", str(path), 0)


async def test_answers_keep_the_order_of_frames_whatever_these_are(world: FrameWorld, plugged: Plugged) -> None:
    """An `OK` names no frame: a device takes it for the oldest one that has none."""
    done = b'{"response":"0d3f5f0e-0a52-4b8e-9a7e-52d4cf5f3d11","ok":true}'
    sent = [b'{"n":1}', done, b'{"n":2}', b'{"n":3}', done]
    async with world.listening(SerialListener, config(plugged.path)) as listener:
        await until(lambda: listener.counters.connections == 1)
        plugged.device.send(b"".join(frame + b"\n" for frame in sent))
        assert await plugged.device.next() == b"OK 1\n"
        assert sorted(world.payloads) == sorted(sent), "the answer did not overtake the first frame"
        for number in range(2, 6):
            assert await plugged.device.next() == b"OK %d\n" % number


async def test_after_noise_it_finds_frames_again(world: FrameWorld, plugged: Plugged) -> None:
    settings = config(
        plugged.path, framing=FramingSpec("length", 40, length_bytes=1, checksum="CRC-8/SMBUS", gap_ms=20), ack="hex:06"
    )
    async with world.listening(SerialListener, settings) as listener:
        await until(lambda: listener.counters.connections == 1)
        frame = listener.rules.framing.encode(b"value")
        plugged.device.send(b"\xff\xfe\xfd")
        await until(lambda: listener.refusals.counts == {"length": 1})
        assert listener.refusals.last[0].data == b"\xff\xfe\xfd"
        await asyncio.sleep(0.1)  # the silence that it is about
        plugged.device.send(frame)
        assert await plugged.device.next(b"\x06") == b"\x06"
        plugged.device.send(frame[:4])
        await until(lambda: listener.refusals.counts.get("half_frame") == 1)
        plugged.device.send(frame)
        assert await plugged.device.next(b"\x06") == b"\x06"
        assert world.payloads == [b"value", b"value"]
        assert listener.counters.connections == 1
    plugged.device.unplug()


async def test_a_silence_ends_a_frame(world: FrameWorld, plugged: Plugged) -> None:
    settings = config(plugged.path, framing=FramingSpec("gap", gap_ms=20, checksum="CRC-16/MODBUS"))
    async with world.listening(SerialListener, settings) as listener:
        await until(lambda: listener.counters.connections == 1)
        plugged.device.send(listener.rules.framing.encode(b"\x11\x03\x02\x00\x0a"))
        assert await plugged.device.next() == b"OK 1\n"
        assert world.payloads == [b"\x11\x03\x02\x00\x0a"]
    plugged.device.unplug()


async def test_a_device_is_asked_by_its_schedule_and_one_request_at_a_time(world: FrameWorld, plugged: Plugged) -> None:
    polls = (PollConfig("T?\n", every_s=0.05, answer_s=0.5), PollConfig("hex:50 3f 0a", every_s=0.05, answer_s=0.02))
    async with world.listening(SerialListener, config(plugged.path, ack="", polls=polls)) as listener:
        asked = []
        for _ in range(6):
            request = await plugged.device.next()
            asked.append(request)
            if request == b"T?\n":
                plugged.device.send(b"21.5\n")
        assert asked.count(b"T?\n") == 3
        assert asked.count(b"P?\n") == 3
        await until(lambda: listener.refusals.counts.get("no_answer", 0) >= 2)
        await world.came(3)
        assert set(world.payloads) == {b"21.5"}
    plugged.device.unplug()


async def test_a_port_that_is_in_use_or_not_allowed_is_said_and_waited_for(
    world: FrameWorld, plugged: Plugged, tmp_path: Path
) -> None:
    async with (
        world.listening(SerialListener, config(plugged.path)) as one,
        world.listening(SerialListener, config(plugged.path)) as two,
    ):
        await until(lambda: one.counters.connections == 1)
        assert "is in use by another process" in two.trouble
        await one.close()
        await until(lambda: two.counters.connections == 1)
        assert two.trouble == ""
    plugged.device.unplug()
    (tmp_path / "no-port").write_text("")
    async with world.listening(SerialListener, config(tmp_path / "no-port")) as listener:
        assert f"cannot open {tmp_path / 'no-port'}" in listener.trouble


async def test_an_adapter_is_found_by_its_usb_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    class Port(NamedTuple):
        device: str
        vid: int | None
        pid: int | None
        serial_number: str | None

    ports = [
        Port("/dev/ttyUSB1", 0x0403, 0x6001, "B"),
        Port("/dev/ttyUSB0", 0x0403, 0x6001, "A:1"),
        Port("/dev/ttyS0", None, None, None),
    ]
    monkeypatch.setattr(module.list_ports, "comports", lambda: ports)
    assert find_port("usb:0403:6001") == "/dev/ttyUSB0"
    assert find_port("usb:0403:6001:B") == "/dev/ttyUSB1"
    assert find_port("usb:0403:6001:A:1") == "/dev/ttyUSB0"
    assert find_port("usb:0403:6002") is None


async def test_what_it_sent_before_the_end_is_answered_at_close(world: FrameWorld, plugged: Plugged) -> None:
    world.bus.hold()
    async with world.listening(SerialListener, config(plugged.path)) as listener:
        await until(lambda: listener.counters.connections == 1)
        plugged.device.send(b"a\n")
        await world.bus.reached(1)
        closing = asyncio.create_task(listener.close())
        world.bus.release()
        assert await plugged.device.next() == b"OK 1\n"
        async with asyncio.timeout(ANSWER_S):
            await closing
    plugged.device.unplug()
