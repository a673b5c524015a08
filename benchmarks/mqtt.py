"""MQTT QoS 1 and 2: messages a second to PUBACK or PUBCOMP, its latency, the server's CPU a message; idle connections.

    .venv/bin/python -m benchmarks.mqtt            the listener in front of a bus that answers at once
    measure(...)                                   any MQTT 3.1.1 server, for the table of `make bench`

The load comes from a process of its own: raw sockets, packets built before the clock starts, 98-byte JSON from a seed.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import resource
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NoReturn, cast

import msgspec
import psutil
import uvloop

from benchmarks.telemetry import payload
from protocols.batch import BatchKey
from protocols.messages import Lane
from protocols.mqtt.connect import Connect, encode_connect
from protocols.mqtt.packets import Publish, Subscribe, Subscription, encode_acks, encode_publish, encode_subscribe
from protocols.mqtt.wire import PUBREC, PUBREL

SEED: Final = 71
PACKETS: Final = 4096
"""Prebuilt for each connection, sent in a circle; more than any number in flight, so packet ids never meet."""
TICK_S: Final = 0.001
START_S: Final = 20.0
SECRET: Final = "benchmark"


IDLE: Final = 10_000
IDLE_AT_ONCE: Final = 100
"""That wait for their answers."""


class MqttFigures(msgspec.Struct, frozen=True):
    connections: int
    in_flight: int
    rate: int
    """Messages a second that were asked for; 0: as many as go."""
    messages_per_s: float
    p50_ms: float
    p99_ms: float
    server_us_per_message: float
    """CPU of the server process, all of its threads."""
    load_us_per_message: float
    """CPU of the generator: where it nears the time of a message, the generator is what is measured."""


class Load(msgspec.Struct, frozen=True):
    port: int
    connections: int
    in_flight: int
    seconds: float
    warm_up_s: float = 0.5
    rate: int = 0
    user_name: str = "bench-{}"
    password: str = SECRET
    topic: str = "up"
    server_pid: int = 0
    qos: int = 1
    kept: bool = False
    """The sessions outlive their connections: QoS 2 is noted on the gateway's disk."""


SHAPES: Final = (
    Load(0, 200, 1, 0),
    Load(0, 20, 100, 0),
    Load(0, 200, 1, 0, rate=10_000),
    Load(0, 200, 1, 0, qos=2),
    Load(0, 20, 100, 0, qos=2),
    Load(0, 200, 1, 0, qos=2, kept=True),
    Load(0, 20, 100, 0, qos=2, kept=True),
)
"""What this file measures by itself; port and seconds are filled in."""


def measure(load: Load) -> MqttFigures:
    """Runs the generator against 127.0.0.1:`load.port` and reads the CPU time of process `load.server_pid`."""
    command = [sys.executable, "-m", "benchmarks.mqtt", "load", msgspec.json.encode(load).decode()]
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, timeout=load.seconds + load.warm_up_s + START_S, text=True
    )
    return msgspec.json.decode(done.stdout, type=MqttFigures)


class _Device(asyncio.Protocol):
    """Keeps `in_flight` messages on their way, or sends when told to."""

    def __init__(self, number: int, load: Load, samples: list[float]) -> None:
        self.acknowledged = 0
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._load = load
        self._samples = samples
        self._sent_at: deque[tuple[int, float]] = deque()
        self._next = 0
        self._rest = 0
        self._held = b""
        generator = random.Random(SEED * 1000 + number)
        packets = [
            encode_publish(Publish(load.topic, payload(generator, index + 1), load.qos, index + 1))
            for index in range(PACKETS)
        ]
        self._size = len(packets[0])
        if any(len(packet) != self._size for packet in packets):
            raise ValueError("the packets differ in length")
        self._packets = b"".join(packets) * 2
        user_name = load.user_name.format(number)
        self._connect = encode_connect(
            Connect(f"load-{number}", not load.kept, 60, user_name=user_name, password=load.password.encode())
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._connect)

    def data_received(self, data: bytes) -> None:
        if not self.ready.done():
            if data not in (b"\x20\x02\x00\x00", b"\x20\x02\x01\x00"):  # a kept session may be there
                self.ready.set_exception(ConnectionRefusedError(f"CONNACK {data.hex()}"))
                return
            self.ready.set_result(None)
            return
        count = self._acknowledged(data)
        self.acknowledged += count
        now = time.perf_counter()
        left = count
        while left:
            sent, at = self._sent_at[0]
            taken = min(left, sent)
            left -= taken
            self._samples.extend([now - at] * taken)
            if taken == sent:
                self._sent_at.popleft()
            else:
                self._sent_at[0] = (sent - taken, at)
        if not self._load.rate:
            self.send(count, now)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ready.done():
            self.ready.set_exception(ConnectionResetError("closed before CONNACK"))

    def _acknowledged(self, data: bytes) -> int:
        """How many messages are done; answers each PUBREC."""
        if self._load.qos == 1:
            self._rest += len(data)
            count, self._rest = divmod(self._rest, 4)
            return count
        data = self._held + data
        end = len(data) // 4 * 4
        self._held = data[end:]
        received = [data[at + 2 : at + 4] for at in range(0, end, 4) if data[at] == PUBREC]
        if received:
            self._transport.write(encode_acks(PUBREL, received))
        return end // 4 - len(received)

    def send(self, count: int, due: float) -> None:
        at = self._next * self._size
        self._transport.write(self._packets[at : at + count * self._size])
        self._next = (self._next + count) % PACKETS
        self._sent_at.append((count, due))


async def _generate(load: Load) -> MqttFigures:
    loop = asyncio.get_running_loop()
    samples: list[float] = []
    devices = [_Device(number, load, samples) for number in range(load.connections)]
    for device in devices:
        await loop.create_connection(lambda device=device: device, "127.0.0.1", load.port)  # type: ignore[misc]
        await device.ready
    if load.rate:
        pace = asyncio.create_task(_pace(load, devices))
    else:
        for device in devices:
            device.send(load.in_flight, time.perf_counter())
    await asyncio.sleep(load.warm_up_s)
    samples.clear()
    server = psutil.Process(load.server_pid) if load.server_pid else None
    own, before = time.process_time(), _cpu_s(server)
    begun = time.perf_counter()
    await asyncio.sleep(load.seconds)
    took_s = time.perf_counter() - begun
    own, used = time.process_time() - own, _cpu_s(server) - before
    count = len(samples)
    if load.rate:
        pace.cancel()
    ordered = sorted(samples[:count])
    if not ordered:
        raise RuntimeError("the server acknowledged nothing")
    return MqttFigures(
        load.connections,
        load.in_flight,
        load.rate,
        count / took_s,
        ordered[count // 2] * 1e3,
        ordered[count * 99 // 100] * 1e3,
        used / count * 1e6,
        own / count * 1e6,
    )


async def _pace(load: Load, devices: list[_Device]) -> None:
    """Sends each message when it is due, whatever became of those before: latency counts from then."""
    begun = time.perf_counter()
    sent = 0
    while True:
        await asyncio.sleep(TICK_S)
        due = int((time.perf_counter() - begun) * load.rate)
        for number in range(sent, due):
            devices[number % len(devices)].send(1, begun + number / load.rate)
        sent = due


def _cpu_s(process: psutil.Process | None) -> float:
    if process is None:
        return 0.0
    times = process.cpu_times()
    return float(times.user + times.system)


class InstantBus:
    """Takes every batch at once and keeps nothing: what remains is the listener's own cost."""

    async def publish(self, topic: str, data: bytes, *, key: BatchKey | None = None, lane: Lane = Lane.LIVE) -> None:
        pass

    async def subscribe(self, topic: str, channel: str, *, ephemeral: bool = False) -> NoReturn:
        raise NotImplementedError("nothing reads this bus")

    async def close(self) -> None:
        pass


async def _serve() -> None:
    from edge.listeners.clock import SystemClock
    from edge.listeners.collector import Collector
    from edge.listeners.listener import Shared
    from edge.listeners.mqtt.config import MqttConfig
    from edge.listeners.mqtt.listener import MqttListener
    from sync.registry import Network, Registry, RegistryChange

    registry = Registry("bench")
    network = Network("bench", secret_sha256=(hashlib.sha256(SECRET.encode()).hexdigest(),))
    registry.apply(RegistryChange("bench", 0, 1, networks=(network,)))
    collector = Collector(InstantBus(), SystemClock(), run=1)
    with TemporaryDirectory() as folder:
        shared = Shared(registry, collector, Path(folder))
        listener = MqttListener(MqttConfig("mqtt", "bench", host="127.0.0.1", port=0), shared)
        await listener.start()
        print(listener.port, flush=True)
        await collector.run()


@contextmanager
def serve() -> Iterator[tuple[int, int]]:
    """A listener in a process of its own: its port and process id."""
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.mqtt", "serve"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline()), process.pid
    finally:
        process.terminate()
        process.wait(START_S)
        if process.stdout is not None:
            process.stdout.close()


class _Idle(asyncio.Protocol):
    def __init__(self, connect: bytes, ready: asyncio.Semaphore) -> None:
        self._connect = connect
        self._ready = ready
        self._left = len(b"\x20\x02\x00\x00\x90\x03\x00\x01\x01")  # CONNACK and SUBACK

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(self._connect)

    def data_received(self, data: bytes) -> None:
        self._left -= len(data)
        if not self._left:
            self._ready.release()


async def _idle(port: int, connections: int) -> None:
    """Opens them, says so, and keeps them until its input ends."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Semaphore(IDLE_AT_ONCE)
    for number in range(connections):
        connect = Connect(f"idle-{number}", False, 60, user_name=f"bench-{number}", password=SECRET.encode())
        data = encode_connect(connect) + encode_subscribe(Subscribe(1, (Subscription("down/#", 1),)))
        await ready.acquire()
        await loop.create_connection(partial(_Idle, data, ready), "127.0.0.1", port)
    for _ in range(IDLE_AT_ONCE):
        await ready.acquire()
    print("ready", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


def idle_bytes(connections: int) -> tuple[int, int]:
    """Resident memory of a server with so many idle connections, and with none."""
    with serve() as (port, pid):
        process = psutil.Process(pid)
        before = process.memory_info().rss
        command = [sys.executable, "-m", "benchmarks.mqtt", "idle", f"{port},{connections}"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
            assert client.stdout is not None
            assert client.stdin is not None
            client.stdout.readline()
            after = process.memory_info().rss
            client.stdin.close()
    return after, before


def _allow_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=("all", "serve", "load", "idle"), default="all")
    parser.add_argument("load", nargs="?", default="")
    parser.add_argument("--seconds", type=float, default=3.0)
    arguments = parser.parse_args()
    _allow_files()
    if arguments.part == "serve":
        uvloop.run(_serve())
    elif arguments.part == "load":
        load = msgspec.json.decode(arguments.load, type=Load)
        print(msgspec.json.encode(uvloop.run(_generate(load))).decode())
    elif arguments.part == "idle":
        port, _, connections = arguments.load.partition(",")
        uvloop.run(_idle(int(port), int(connections)))
    else:
        for shape in SHAPES:
            with serve() as (port, pid):
                load = msgspec.structs.replace(shape, port=port, seconds=arguments.seconds, server_pid=pid)
                shown = {"qos": load.qos, "kept": load.kept} | msgspec.to_builtins(measure(load))
                print(json.dumps(shown), flush=True)
        loaded, bare = idle_bytes(IDLE)
        print(f"{IDLE:,} idle connections: {loaded / 1e6:.0f} MB, of which {bare / 1e6:.0f} MB without any")


if __name__ == "__main__":
    main()
