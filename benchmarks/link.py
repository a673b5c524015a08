"""The link: microseconds of CPU and bytes a message, both ends, beside the bare WebSocket and beside plain blocks.

    .venv/bin/python -m benchmarks.link [seconds]

Gateway and cloud run as two processes over one WebSocket on loopback, so that each one's CPU is its own. The cloud
verifies each block and keeps nothing. `bare`: the same bytes over the same two libraries without the link's protocol.
Bytes are those of the frames; `as blocks`: had the same blocks travelled one by one, as they stand in the log.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from typing import Any, Final

import msgspec
import uvicorn
import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from websockets.asyncio.client import connect

from benchmarks.telemetry import payload
from protocols.batch import BatchKey, RecordBatch, encode_records
from protocols.block import encode_block, read_head
from protocols.limits import LINK_FRAME_BYTES_MAX
from protocols.messages import Clock, ClockState, Command, Lane, Origin, Priority
from sync.link.asgi import LinkApp
from sync.link.client import LinkClient
from sync.link.frames import CommandKept, CommandProgress, Hello
from sync.link.ports import Parcel, Room
from sync.link.regroup import FEATURE
from sync.link.server import GatewaySession, unix_ms
from sync.link.tokens import Claims, public_bytes, public_key, sign, verify
from sync.registry import RegistryChange
from tidegate.logs import configure

SEED: Final = 71
NOW_MS: Final = 1_700_000_000_000
SHAPES: Final = (500, 100, 10, 1)
"""Messages in a block: a busy gateway's, down to one whose devices speak once in a while."""
POOL_MESSAGES: Final = 50_000
"""Messages prepared and sent in a circle, each time under new numbers of the same width."""


class LinkFigures(msgspec.Struct, frozen=True):
    block: int
    """Messages in a block."""
    messages_per_s: float
    gateway_us: float
    """CPU a message."""
    cloud_us: float
    bare_us: float
    """CPU of both ends a message."""
    bytes_per_message: float
    block_bytes_per_message: float


def rows(seconds: float) -> list[LinkFigures]:
    """About `seconds` for each row."""
    return [_measured(size, seconds) for size in SHAPES]


def _measured(size: int, seconds: float) -> LinkFigures:
    made = _blocks(size)
    bare_count, _, bare_gateway, bare_cloud, _ = _run(made, seconds / 3, bare=True)
    count, elapsed, gateway, cloud, wire = _run(made, seconds, bare=False)
    return LinkFigures(
        size,
        count / elapsed,
        gateway / count * 1e6,
        cloud / count * 1e6,
        (bare_gateway + bare_cloud) / bare_count * 1e6,
        wire / count,
        sum(map(len, made)) / sum(read_head(block).records for block in made),
    )


def _run(made: list[bytes], seconds: float, *, bare: bool) -> tuple[int, float, float, float, int]:
    """Messages, seconds, CPU of the gateway, CPU of the cloud, bytes of frames."""
    key = Ed25519PrivateKey.generate()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    cloud = context.Process(target=_cloud, args=(theirs, public_bytes(key), bare))
    cloud.start()
    try:
        port: int = ours.recv()
        started_cpu = time.process_time()
        run = _send_bare if bare else _send
        count, elapsed, wire = uvloop.run(run(port, key, made, seconds))
        gateway_cpu = time.process_time() - started_cpu
        ours.send(None)
        cloud_cpu: float = ours.recv()
    finally:
        cloud.join(10)
        if cloud.exitcode is None:
            cloud.terminate()
    return count, elapsed, gateway_cpu, cloud_cpu, wire


class _Circle:
    """A source that never ends, until it is told to."""

    def __init__(self, made: list[bytes]) -> None:
        self._made = made
        self._at = 0
        self.records = 0
        self.finished = False

    def begin(self, wake: Callable[[], None]) -> None:
        self._at = 0

    def take(self, room: Room) -> Parcel | None:
        if self.finished or not room.backfill_bytes_max:
            return None
        taken: list[bytes] = []
        size = 0
        while len(taken) < room.blocks_max:
            block = self._made[self._at]
            size += len(block)
            if taken and size > room.backfill_bytes_max:
                break
            taken.append(block)
            self._at = (self._at + 1) % len(self._made)
            if self._at == 0:
                break  # a request's ranges rise
        return Parcel(Lane.BACKFILL, taken)

    def accepted(self, epoch: int, first_seq: int, end_seq: int) -> None:
        self.records += end_seq - first_seq

    def give_back(self) -> None:
        self._at = 0

    async def end(self) -> None:
        pass


class _Downlink:
    async def registry_changed(self, change: RegistryChange) -> None:
        pass

    async def command_arrived(self, command: Command) -> None:
        pass

    def linked(self, *, confirmed: bool) -> None:
        pass

    def command_kept(self, kept: CommandKept) -> None:
        pass


async def _send(port: int, key: Ed25519PrivateKey, made: list[bytes], seconds: float) -> tuple[int, float, int]:
    source = _Circle(made)
    link = LinkClient(
        f"ws://127.0.0.1:{port}/link/v1",
        token=lambda now_s: sign(key, gateway_id="bench", project_id="bench", now_s=now_s),
        hello=lambda: Hello("benchmark", 1, 1, 0, unix_ms(), 0, (FEATURE,)),
        source=source,
        downlink=_Downlink(),
        wall_ms=unix_ms,
        random=random.random,
    )
    stop = asyncio.Event()
    started = time.perf_counter()
    running = asyncio.create_task(link.run(stop))
    await asyncio.sleep(seconds)
    source.finished = True
    while link.status.in_flight_bytes:  # the link has no event for it
        await asyncio.sleep(0.001)
    elapsed = time.perf_counter() - started
    stop.set()
    await running
    return source.records, elapsed, link.status.wire_bytes_sent


async def _send_bare(port: int, key: Ed25519PrivateKey, made: list[bytes], seconds: float) -> tuple[int, float, int]:
    """Frames of the same blocks; an empty answer to each; as many in flight as fit the same window."""
    frames = [made[i : i + 40] for i in range(0, len(made), 40)]
    joined = [(b"".join(frame), sum(read_head(block).records for block in frame)) for frame in frames]
    records = sent = wire = 0
    free = asyncio.Semaphore(16)
    async with connect(f"ws://127.0.0.1:{port}/", compression=None, proxy=None) as websocket:

        async def listen() -> None:
            while True:
                await websocket.recv()
                free.release()

        listening = asyncio.create_task(listen())
        started = time.perf_counter()
        while time.perf_counter() - started < seconds:
            data, count = joined[sent % len(joined)]
            await free.acquire()
            await websocket.send(data)
            sent += 1
            records += count
            wire += len(data)
        for _ in range(16):
            await free.acquire()
        elapsed = time.perf_counter() - started
        listening.cancel()
    return records, elapsed, wire


class _Platform:
    """A cloud that verifies and forgets."""

    def __init__(self, key: bytes) -> None:
        self._key = public_key(key)
        self.app = LinkApp(self._authenticate, self._open_session)

    async def _authenticate(self, token: str) -> Claims:
        return verify(token, [self._key], now_s=int(time.time()))

    @asynccontextmanager
    async def _open_session(self, claims: Claims) -> AsyncIterator[GatewaySession]:
        yield GatewaySession(
            project_id=claims.project_id, gateway_id=claims.gateway_id, intake=self, registry=self, commands=self
        )

    async def accept(self, lane: Lane, blocks: list[bytes]) -> None:
        await asyncio.sleep(0)

    async def changes(self, base_revision: int) -> AsyncIterator[RegistryChange]:
        yield RegistryChange("bench", 0, 1)

    async def commands(self) -> AsyncIterator[Command]:
        return
        yield

    async def progress(self, progress: CommandProgress) -> None:
        pass


async def _bare_app(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "bytes": b""})


def _cloud(pipe: Connection, key: bytes, bare: bool) -> None:
    uvloop.run(_serve(pipe, key, bare))


async def _serve(pipe: Connection, key: bytes, bare: bool) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        _bare_app if bare else _Platform(key).app,
        lifespan="off",
        log_level="critical",
        ws_max_size=LINK_FRAME_BYTES_MAX,
        ws_per_message_deflate=False,
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    started_cpu = time.process_time()
    pipe.send(listener.getsockname()[1])
    await asyncio.to_thread(pipe.recv)
    pipe.send(time.process_time() - started_cpu)
    server.should_exit = True
    await task


def _blocks(size: int) -> list[bytes]:
    seeded = random.Random(SEED)
    origins = [Origin("bench", "serial", f"pump-{n:03}", "up", "", "mqtt") for n in range(50)]
    made = []
    for counter in range(POOL_MESSAGES // size):
        first = counter * size
        places = sorted(seeded.randrange(50) for _ in range(size))
        used = sorted(set(places))
        batch = RecordBatch(
            BatchKey(1, counter),
            Clock(1, 0, ClockState.SYNCHRONIZED),
            NOW_MS + 10 * first,
            [origins[place] for place in used],
            [used.index(place) for place in places],
            [10 * n for n in range(size)],
            [payload(seeded, first + n) for n in range(size)],
        )
        made.append(
            encode_block(
                [encode_records(batch)],
                epoch=1,
                first_seq=first,
                records=size,
                newest_ms=NOW_MS + 10 * (first + size),
                priority=Priority.TELEMETRY,
            )
        )
    return made


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    configure(level="warning")
    print("messages/block      msg/s  gateway µs/msg  cloud µs/msg  both bare  bytes/msg  as blocks")
    for row in rows(seconds):
        print(
            f"{row.block:14}  {row.messages_per_s:9,.0f}  {row.gateway_us:14.3f}  {row.cloud_us:12.3f}"
            f"  {row.bare_us:9.3f}  {row.bytes_per_message:9.1f}  {row.block_bytes_per_message:9.1f}"
        )


if __name__ == "__main__":
    main()
