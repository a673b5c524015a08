"""CoAP: confirmable requests a second to the durable answer. The baseline is aiocoap's own server beside it, which
answers each request at once and keeps nothing.

    .venv/bin/python -m benchmarks.coap            both, the listener in front of a bus that takes everything at once

The load comes from a process of its own: sockets with one request in flight each, as devices have.
"""

from __future__ import annotations

import asyncio
import random
import select
import socket
import time
from functools import partial
from typing import Final

from benchmarks.beside import SECRET, WARM_UP_S, Beside, listen, main
from benchmarks.mqtt import SEED
from benchmarks.row import Row
from benchmarks.telemetry import payload
from protocols.coap.message import Message, empty
from protocols.coap.numbers import Code, Kind, Option

DEVICES: Final = 50
BESIDE: Final = Beside("benchmarks.coap")
GOAL_RATIO: Final = 0.8
"""Of what aiocoap itself carries."""
LOST_S: Final = 2.0
"""An answer that takes longer is taken for lost, and its request is sent again under a new id."""
CONFIRMABLE: Final = 0x42
"""First byte, with a token of two bytes."""


def rows(seconds: float) -> list[Row]:
    bare = BESIDE.answers_per_s("bare", seconds)
    ours = BESIDE.answers_per_s("listener", seconds)
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


async def _generate(port: int, seconds: float) -> float:
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
    from edge.listeners.coap.config import CoapConfig
    from edge.listeners.coap.listener import CoapListener

    config = CoapConfig(name="coap", network="bench", host="127.0.0.1", port=0, templates=("{serial}/up",), rate_max=0)
    await listen(partial(CoapListener, config))


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


if __name__ == "__main__":
    main(__doc__, rows, listener=_listen, bare=_serve_bare, load=_generate)
