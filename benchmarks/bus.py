"""Both buses: from publish to the answer, and on to a reader's acknowledgement. All in one process, as in the gateway.

Baselines: the same four messages of ZeroMQ by `zmq.asyncio`, and nats-py's own publish with a push subscription.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import nats
import uvloop
import zmq
import zmq.asyncio
from nats.aio.msg import Msg

from benchmarks.row import Row
from sync.bus.contract import Reader, TopicSpec
from sync.bus.jetstream import JetStreamBus
from sync.bus.zeromq_hub import ZeroMqHub
from tests.contract.nats_server import NatsServer

RECORDS: Final = 100
BATCH: Final = bytes(RECORDS * 110)
"""As large as a batch of 100 records of 98 bytes each."""
AT_ONCE: Final = 32
TOPIC: Final = TopicSpec("bench", ("reader",), bytes_max=1024**3)
ROOM: Final = (256, 8 * 1024 * 1024)


def rows(seconds: float) -> list[Row]:
    return uvloop.run(_measure(seconds))


async def _measure(seconds: float) -> list[Row]:
    return [*await _edge(seconds), *await _cloud(seconds)]


async def _edge(seconds: float) -> list[Row]:
    hub = ZeroMqHub([TOPIC], endpoint=None)
    bus = hub.connect()
    async with _Reading(await bus.subscribe("bench", "reader")):
        alone = await _rate(lambda: bus.publish("bench", BATCH), 1, seconds)
        together = await _rate(lambda: bus.publish("bench", BATCH), AT_ONCE, seconds)
    await hub.close()
    bare = await _four_messages(seconds)
    return [
        Row(
            "edge bus, publish to answer, one at a time",
            1e6 / alone,
            "µs/batch",
            goal=150,
            at_most=True,
            baseline="the same four messages by zmq.asyncio",
            baseline_measured=1e6 / bare,
        ),
        Row(f"edge bus, publish to answer, {AT_ONCE} at once", 1e6 / together, "µs/batch"),
    ]


async def _cloud(seconds: float) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        server = NatsServer(Path(folder))
        await server.start()
        try:
            bus = await JetStreamBus.connect(server.url, [TOPIC])
            async with _Reading(await bus.subscribe("bench", "reader")) as reading:
                rate = await _rate(lambda: bus.publish("bench", BATCH), AT_ONCE, seconds)
                await reading.until_all(bus)
            await bus.close()
            bare = await _nats_py(server.url, seconds)
        finally:
            await server.kill()
    return [
        Row(
            f"JetStream, batches of {RECORDS}, synced, read and acknowledged, {AT_ONCE} at once",
            rate * RECORDS,
            "messages/s",
            goal=150_000,
            baseline="nats-py, push subscription",
            baseline_measured=bare * RECORDS,
            note=f"{rate:,.0f} synced publishes/s",
        )
    ]


class _Reading:
    """A reader that acknowledges all it gets."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def __aenter__(self) -> _Reading:
        self._task = asyncio.ensure_future(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._reader.close()

    async def until_all(self, bus: JetStreamBus) -> None:
        while (await bus.stats())[0].batches:
            await asyncio.sleep(0.01)

    async def _run(self) -> None:
        while True:
            for delivery in await self._reader.fetch(*ROOM):
                await delivery.ack()


async def _rate(call: Callable[[], Awaitable[object]], at_once: int, seconds: float) -> float:
    """Calls a second, `at_once` of them on their way at any time."""
    began = time.perf_counter()

    async def again() -> int:
        count = 0
        while time.perf_counter() - began < seconds:
            await call()
            count += 1
        return count

    counts = await asyncio.gather(*(again() for _ in range(at_once)))
    return sum(counts) / (time.perf_counter() - began)


async def _four_messages(seconds: float) -> float:
    """Publisher to hub, hub to reader, and both answers back, with nothing in them to read."""
    with zmq.asyncio.Context() as context:
        hub, publisher, reader = (context.socket(kind) for kind in (zmq.ROUTER, zmq.DEALER, zmq.DEALER))
        publisher.setsockopt(zmq.ROUTING_ID, b"publisher")
        reader.setsockopt(zmq.ROUTING_ID, b"reader")
        hub.bind("inproc://bare")
        for client in (publisher, reader):
            client.connect("inproc://bare")

        async def route() -> None:
            while True:
                peer, *parts = await hub.recv_multipart()
                await hub.send_multipart([b"reader" if peer == b"publisher" else b"publisher", *parts])

        async def answer() -> None:
            while True:
                await reader.recv_multipart()
                await reader.send_multipart([b"ack"])

        async def publish() -> None:
            await publisher.send_multipart([b"publish", BATCH])
            await publisher.recv_multipart()

        tasks = [asyncio.ensure_future(work) for work in (route(), answer())]
        rate = await _rate(publish, 1, seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for socket in (hub, publisher, reader):
            socket.close(0)
    return rate


async def _nats_py(url: str, seconds: float) -> float:
    client = await nats.connect(url)
    stream = client.jetstream()

    async def acknowledge(message: Msg) -> None:
        await message.ack()

    await stream.add_stream(name="bare", subjects=["bare"], storage="file", retention="interest")
    await stream.subscribe("bare", durable="reader", cb=acknowledge, manual_ack=True)
    rate = await _rate(lambda: stream.publish("bare", BATCH), AT_ONCE, seconds)
    await client.drain()  # with its acknowledgements
    return rate
