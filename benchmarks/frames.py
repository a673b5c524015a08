"""Frames over TCP, UDP and 16 serial ports to durable acknowledgement: a whole gateway on one core, the cloud away.

    .venv/bin/python -m benchmarks frames

The load comes from a process of its own: frames built before the clock starts, 98-byte JSON lines from a seed. The
baseline takes the same bytes, splits them and answers, and records nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import pty
import random
import socket
import subprocess
import sys
import tempfile
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final, cast

import msgspec
import psutil
import uvloop

from benchmarks.row import Row
from benchmarks.telemetry import payload
from tests.contract.nats_server import free_port
from tests.end_to_end.site import Site

SEED: Final = 72
FRAMES: Final = 4096
TCP_CONNECTIONS: Final = 10
TCP_IN_FLIGHT: Final = 1000
UDP_SOURCES: Final = 4
UDP_LINES: Final = 14
"""Of one datagram: what fits in an Ethernet frame."""
UDP_IN_FLIGHT: Final = 16
"""Datagrams of a source without an answer: a receive buffer holds so many of all of them."""
PORTS: Final = 16
PORT_BYTES_PER_S: Final = 11_500
"""A line at 115,200 baud."""
PORT_CHUNK_S: Final = 0.016
"""How often a USB adapter hands on what it has: its latency timer."""
ACK: Final = b"\x06"
START_S: Final = 20.0


class FrameLoad(msgspec.Struct, frozen=True):
    kind: str
    """tcp or udp."""
    port: int
    seconds: float
    warm_up_s: float = 0.5
    server_pid: int = 0


class FrameFigures(msgspec.Struct, frozen=True):
    frames_per_s: float
    server_us_per_frame: float
    load_us_per_frame: float


def rows(seconds: float) -> list[Row]:
    return uvloop.run(_measure(seconds))


async def _measure(seconds: float) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        Path(folder).chmod(0o755)
        ports = [Path(folder) / f"tty{number}" for number in range(PORTS)]
        ends = [_open_port(path) for path in ports]
        async with Site(Path(folder)) as site:
            tcp, udp = free_port(), free_port()
            site.edge_toml.write_text(site.edge_toml.read_text() + _sections(tcp, udp, ports))
            await site.set_up()
            await site.cloud.stop()
            pid = site.gateway.pid
            _pin(pid)
            found = []
            for kind, port, goal in (("tcp", tcp, 100_000), ("udp", udp, 100_000)):
                figures = await asyncio.to_thread(measure, FrameLoad(kind, port, seconds, server_pid=pid))
                with serve(kind) as (bare_port, bare_pid):
                    _pin(bare_pid)
                    bare = await asyncio.to_thread(measure, FrameLoad(kind, bare_port, seconds, server_pid=bare_pid))
                found.append(
                    Row(
                        f"{kind.upper()} frames to durable acknowledgement, in bulk",
                        figures.frames_per_s,
                        "frames/s",
                        goal=goal,
                        baseline="split and answered, nothing recorded",
                        baseline_measured=bare.frames_per_s,
                        note=f"{figures.server_us_per_frame:.1f} µs of the gateway's CPU a frame",
                    )
                )
            found.append(await asyncio.to_thread(_serial, pid, ends, seconds))
            return found


def _sections(tcp: int, udp: int, ports: list[Path]) -> str:
    common = 'network = "plain"\nopen = true\nack = "hex:06"\n'
    text = f'[[tcp]]\nname = "tcp"\n{common}host = "127.0.0.1"\nport = {tcp}\n'
    text += f'[[udp]]\nname = "udp"\n{common}host = "127.0.0.1"\nport = {udp}\nrate_max = 0\n'
    text += 'framing = {kind = "line"}\n'
    for number, path in enumerate(ports):
        text += f'[[serial]]\nname = "serial-{number}"\n{common}port = "{path}"\nbaud = 115200\n'
        text += f'device = "serial:{number}"\n'
    return text


def measure(load: FrameLoad) -> FrameFigures:
    command = [sys.executable, "-m", "benchmarks.frames", "load", msgspec.json.encode(load).decode()]
    limit_s = load.seconds + load.warm_up_s + START_S
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=limit_s, text=True)
    return msgspec.json.decode(done.stdout, type=FrameFigures)


class _TcpDevice(asyncio.Protocol):
    """Keeps so many frames on their way; each is answered by one byte."""

    def __init__(self, number: int) -> None:
        self.acknowledged = 0
        lines = _lines(number)
        self._size = len(lines[0])
        self._lines = b"".join(lines) * 2
        self._next = 0
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send(TCP_IN_FLIGHT)

    def data_received(self, data: bytes) -> None:
        self.acknowledged += len(data)
        self._send(len(data))

    def _send(self, count: int) -> None:
        at = self._next * self._size
        self._transport.write(self._lines[at : at + count * self._size])
        self._next = (self._next + count) % FRAMES


class _UdpDevice(asyncio.DatagramProtocol):
    """Keeps so many datagrams on their way; each line of them is answered by one byte."""

    def __init__(self, number: int) -> None:
        self.acknowledged = 0
        lines = _lines(number)
        self._datagrams = [b"".join(lines[at : at + UDP_LINES]) for at in range(0, FRAMES - UDP_LINES, UDP_LINES)]
        self._next = 0
        self._answers = 0
        self._transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)
        for _ in range(UDP_IN_FLIGHT):
            self._send()

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.acknowledged += len(data)
        self._answers += len(data)
        while self._answers >= UDP_LINES:
            self._answers -= UDP_LINES
            self._send()

    def _send(self) -> None:
        self._transport.sendto(self._datagrams[self._next % len(self._datagrams)])
        self._next += 1


async def _generate(load: FrameLoad) -> FrameFigures:
    loop = asyncio.get_running_loop()
    devices: list[_TcpDevice | _UdpDevice] = []
    for number in range(TCP_CONNECTIONS if load.kind == "tcp" else UDP_SOURCES):
        if load.kind == "tcp":
            _, tcp = await loop.create_connection(partial(_TcpDevice, number), "127.0.0.1", load.port)
            devices.append(tcp)
        else:
            _, udp = await loop.create_datagram_endpoint(
                partial(_UdpDevice, number),
                local_addr=(f"127.0.0.{number + 1}", 0),
                remote_addr=("127.0.0.1", load.port),
            )
            devices.append(udp)
    await asyncio.sleep(load.warm_up_s)
    server = psutil.Process(load.server_pid)
    own, used, before = time.process_time(), _cpu_s(server), sum(device.acknowledged for device in devices)
    begun = time.perf_counter()
    await asyncio.sleep(load.seconds)
    took_s = time.perf_counter() - begun
    count = sum(device.acknowledged for device in devices) - before
    if not count:
        raise RuntimeError("the server acknowledged nothing")
    own, used = time.process_time() - own, _cpu_s(server) - used
    return FrameFigures(count / took_s, used / count * 1e6, own / count * 1e6)


def _serial(pid: int, ends: list[int], seconds: float) -> Row:
    """All ports at their line's full rate, paced; the answers are read and counted."""
    lines = b"".join(_lines(0))
    server, chunk = psutil.Process(pid), round(PORT_BYTES_PER_S * PORT_CHUNK_S)
    sent = answers = 0
    before, begun = _cpu_s(server), time.perf_counter()
    rounds = round(seconds / PORT_CHUNK_S)
    for number in range(rounds):
        at = number * chunk % (len(lines) - chunk)
        for end in ends:
            sent += os.write(end, lines[at : at + chunk])
            answers += _drained(end)
        time.sleep(max(0.0, begun + (number + 1) * PORT_CHUNK_S - time.perf_counter()))
    took_s = time.perf_counter() - begun
    share = (_cpu_s(server) - before) / took_s * 100
    return Row(
        f"{PORTS} serial ports at {PORT_BYTES_PER_S / 1000:g} kB/s each",
        share,
        "% of a core",
        goal=10,
        at_most=True,
        note=f"{sent / took_s / PORTS / 1000:.1f} kB/s a port, {answers / took_s:,.0f} frames/s acknowledged",
    )


def _drained(end: int) -> int:
    try:
        return len(os.read(end, 4096))
    except BlockingIOError:
        return 0


def _open_port(path: Path) -> int:
    """A pseudo-terminal: its port is linked at `path`, and this is the other end."""
    end, port = pty.openpty()
    tty.setraw(port)
    os.set_blocking(end, False)
    path.symlink_to(os.ttyname(port))
    return end


def _lines(number: int) -> list[bytes]:
    generator = random.Random(SEED * 1000 + number)
    return [payload(generator, index + 1) + b"\n" for index in range(FRAMES)]


class _BareTcp(asyncio.Protocol):
    def __init__(self) -> None:
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        *frames, self._rest = (self._rest + data).split(b"\n")
        self._transport.write(ACK * len(frames))


class _BareUdp(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: object) -> None:
        self._transport.sendto(ACK * len(data.split(b"\n")[:-1]), cast(tuple[str, int], addr))


async def _serve(kind: str) -> None:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        if kind == "tcp":
            await loop.create_server(_BareTcp, sock=sock)
        else:
            sock.setblocking(False)
            await loop.create_datagram_endpoint(_BareUdp, sock=sock)
        print(sock.getsockname()[1], flush=True)
        await asyncio.Event().wait()


@contextmanager
def serve(kind: str) -> Iterator[tuple[int, int]]:
    """The baseline in a process of its own: its port and process id."""
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.frames", kind], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline()), process.pid
    finally:
        process.terminate()
        process.wait(START_S)
        if process.stdout is not None:
            process.stdout.close()


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _pin(pid: int) -> None:
    """To the last core, all threads of it."""
    core = max(os.sched_getaffinity(0))
    for thread in psutil.Process(pid).threads():
        os.sched_setaffinity(thread.id, {core})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("tcp", "udp", "load"))
    parser.add_argument("load", nargs="?", default="")
    arguments = parser.parse_args()
    if arguments.part == "load":
        load = msgspec.json.decode(arguments.load, type=FrameLoad)
        print(msgspec.json.encode(uvloop.run(_generate(load))).decode())
    else:
        uvloop.run(_serve(arguments.part))


if __name__ == "__main__":
    main()
