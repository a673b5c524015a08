"""HTTP: requests a second to the durable answer. The baseline is h11 alone, which answers each request at once.

    .venv/bin/python -m benchmarks.http            both in front of a bus that takes everything at once

The load comes from a process of its own: keep-alive connections with one request in flight each, built before the clock
starts.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, cast

import h11
import uvloop

from benchmarks.mqtt import SEED, START_S, InstantBus
from benchmarks.row import Row
from benchmarks.telemetry import payload

CONNECTIONS: Final = 50
WARM_UP_S: Final = 0.5
SECRET: Final = "benchmark"
PROGRAM: Final = (sys.executable, "-m", "benchmarks.http")


def rows(seconds: float) -> list[Row]:
    with _serving("listener") as port:
        ours = _measure(port, seconds)
    with _serving("bare") as port:
        bare = _measure(port, seconds)
    return [
        Row(
            f"HTTP requests, {CONNECTIONS} connections, 1 in flight",
            ours,
            "messages/s",
            baseline="h11 alone, nothing checked or recorded",
            baseline_measured=bare,
            note="one core; a body may hold many messages",
        )
    ]


def _measure(port: int, seconds: float) -> float:
    command = [*PROGRAM, "load", str(port), "--seconds", str(seconds)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=seconds + START_S, text=True)
    return float(done.stdout)


@contextmanager
def _serving(part: str) -> Iterator[int]:
    """A server in a process of its own: its port."""
    process = subprocess.Popen([*PROGRAM, part], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait(START_S)
        if process.stdout is not None:
            process.stdout.close()


class _Device(asyncio.Protocol):
    def __init__(self, number: int) -> None:
        self.answers = 0
        body = payload(random.Random(SEED * 1000 + number), number)
        head = f"POST /bench-{number} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {SECRET}\r\n"
        self._request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not data.startswith(b"HTTP/1.1 204 "):
            raise RuntimeError(f"answered {data[:100]!r}")
        self.answers += 1
        self._transport.write(self._request)


async def _generate(port: int, seconds: float) -> float:
    """Answers a second."""
    devices = [_Device(number) for number in range(CONNECTIONS)]
    for device in devices:
        await asyncio.get_running_loop().create_connection(lambda device=device: device, "127.0.0.1", port)  # type: ignore[misc]
    await asyncio.sleep(WARM_UP_S)
    before, begun = sum(device.answers for device in devices), time.perf_counter()
    await asyncio.sleep(seconds)
    return (sum(device.answers for device in devices) - before) / (time.perf_counter() - begun)


async def _listen() -> None:
    from edge.listeners.clock import SystemClock
    from edge.listeners.collector import Collector
    from edge.listeners.http.config import HttpConfig
    from edge.listeners.http.listener import HttpListener
    from sync.registry import Network, Registry, RegistryChange

    registry = Registry("bench")
    network = Network("bench", secret_sha256=(hashlib.sha256(SECRET.encode()).hexdigest(),))
    registry.apply(RegistryChange("bench", 0, 1, networks=(network,)))
    collector = Collector(InstantBus(), SystemClock(), run=1)
    listener = HttpListener(HttpConfig("http", "bench", host="127.0.0.1", port=0), registry, collector)
    await listener.start()
    print(listener.port, flush=True)
    await collector.run()


class _Bare(asyncio.Protocol):
    """What h11 costs, and nothing else."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._http = h11.Connection(h11.SERVER)

    def data_received(self, data: bytes) -> None:
        self._http.receive_data(data)
        while (event := self._http.next_event()) is not h11.NEED_DATA:
            if isinstance(event, h11.ConnectionClosed):
                return
            if isinstance(event, h11.EndOfMessage):
                head = self._http.send(h11.Response(status_code=204, headers=[])) or b""
                self._transport.write(head + (self._http.send(h11.EndOfMessage()) or b""))
                self._http.start_next_cycle()


async def _serve_bare() -> None:
    server = await asyncio.get_running_loop().create_server(_Bare, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=("all", "listener", "bare", "load"), default="all")
    parser.add_argument("port", nargs="?", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=3.0)
    arguments = parser.parse_args()
    if arguments.part == "listener":
        uvloop.run(_listen())
    elif arguments.part == "bare":
        uvloop.run(_serve_bare())
    elif arguments.part == "load":
        print(uvloop.run(_generate(arguments.port, arguments.seconds)))
    else:
        for row in rows(arguments.seconds):
            print(f"{row.stage}: {row.measured:,.0f} {row.unit}, {row.ratio or 0:.0%} of {row.baseline}")


if __name__ == "__main__":
    main()
