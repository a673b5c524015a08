"""CoAP: confirmable requests a second to the durable answer. The baseline is aiocoap's own server beside it, which
answers each request at once and keeps nothing.

    .venv/bin/python -m benchmarks.coap            both, the listener in front of a bus that takes everything at once

The load comes from a process of its own: sockets with one request in flight each, as devices have.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import random
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import uvloop

from benchmarks.mqtt import SEED, START_S, InstantBus
from benchmarks.row import Row
from benchmarks.telemetry import payload
from protocols.coap.message import Message, empty
from protocols.coap.numbers import Code, Kind, Option

DEVICES: Final = 50
WARM_UP_S: Final = 0.5
SECRET: Final = "benchmark"
PROGRAM: Final = (sys.executable, "-m", "benchmarks.coap")
GOAL_RATIO: Final = 0.8
"""Of what aiocoap itself carries."""
LOST_S: Final = 2.0
"""An answer that takes longer is taken for lost, and its request is sent again under a new id."""
CONFIRMABLE: Final = 0x42
"""First byte, with a token of two bytes."""


def rows(seconds: float) -> list[Row]:
    with _serving("bare") as port:
        bare = _measure(port, seconds)
    with _serving("listener") as port:
        ours = _measure(port, seconds)
    return [
        Row(
            f"CoAP confirmable requests, {DEVICES} devices, 1 in flight",
            ours,
            "messages/s",
            goal=bare * GOAL_RATIO,
            baseline="aiocoap's server, nothing checked or recorded",
            baseline_measured=bare,
            note="one core",
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


class _Device:
    """One request in flight."""

    def __init__(self, number: int, port: int) -> None:
        self.answers = 0
        self.sent_s = 0.0
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect(("127.0.0.1", port))
        self._id = number * 997 & 0xFFFF
        options = (
            (int(Option.URI_PATH), b"bench"),
            (int(Option.URI_PATH), b"up"),
            (int(Option.URI_QUERY), f"key={SECRET}".encode()),
        )
        body = payload(random.Random(SEED * 1000 + number), number)
        request = Message(Kind.CONFIRMABLE, Code.POST, 0, b"tk", options, body).encode()
        self._first, self._rest = request[:2], request[6:]

    def send(self) -> None:
        self._id = self._id + 1 & 0xFFFF
        self.socket.send(self._first + self._id.to_bytes(2, "big") * 2 + self._rest)
        self.sent_s = time.perf_counter()

    def read(self) -> None:
        """An answer in the acknowledgement, or one of its own, to be acknowledged, behind an empty one."""
        answer = self.socket.recv(2048)
        if answer[1] == Code.EMPTY or answer[4:6] != self._id.to_bytes(2, "big"):
            return
        if answer[1] != Code.CHANGED:
            raise RuntimeError(f"answered {answer[:100]!r}")
        if answer[0] == CONFIRMABLE:
            self.socket.send(empty(Kind.ACKNOWLEDGEMENT, answer[2] << 8 | answer[3]))
        self.answers += 1
        self.send()


def _generate(port: int, seconds: float) -> float:
    """Answers a second."""
    devices = [_Device(number, port) for number in range(DEVICES)]
    by_file = {device.socket.fileno(): device for device in devices}
    poll = select.epoll()
    for number, device in by_file.items():
        poll.register(number, select.EPOLLIN)
        device.send()
    begun, before = time.perf_counter(), -1
    while (now := time.perf_counter()) < begun + WARM_UP_S + seconds:
        if before < 0 and now > begun + WARM_UP_S:
            before = sum(device.answers for device in devices)
        for number, _ in poll.poll(LOST_S):
            by_file[number].read()
        for device in devices:
            if now - device.sent_s > LOST_S:
                device.send()
    return (sum(device.answers for device in devices) - before) / seconds


async def _listen() -> None:
    from edge.listeners.clock import SystemClock
    from edge.listeners.coap.config import CoapConfig
    from edge.listeners.coap.listener import CoapListener
    from edge.listeners.collector import Collector
    from sync.registry import Network, Registry, RegistryChange

    registry = Registry("bench")
    network = Network("bench", secret_sha256=(hashlib.sha256(SECRET.encode()).hexdigest(),))
    registry.apply(RegistryChange("bench", 0, 1, networks=(network,)))
    collector = Collector(InstantBus(), SystemClock(), run=1)
    config = CoapConfig(name="coap", network="bench", host="127.0.0.1", port=0, templates=("{serial}/up",), rate_max=0)
    listener = CoapListener(config, registry, collector)
    await listener.start()
    print(listener.port, flush=True)
    await collector.run()


async def _serve_bare() -> None:
    import aiocoap
    from aiocoap.resource import Resource, Site

    class Up(Resource):
        async def render_post(self, request: aiocoap.Message) -> aiocoap.Message:
            return aiocoap.Message(code=aiocoap.CHANGED)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    site = Site()
    site.add_resource(["bench", "up"], Up())
    await aiocoap.Context.create_server_context(site, bind=("127.0.0.1", port), transports=["simplesocketserver"])
    print(port, flush=True)
    await asyncio.Event().wait()


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
        print(_generate(arguments.port, arguments.seconds))
    else:
        for row in rows(arguments.seconds):
            print(f"{row.stage}: {row.measured:,.0f} {row.unit}, {row.ratio or 0:.0%} of {row.baseline}")


if __name__ == "__main__":
    main()
