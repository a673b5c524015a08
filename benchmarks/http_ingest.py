"""HTTP ingest: a whole cloud as a process, and requests to the durable answer. The baseline is uvicorn and FastAPI
alone, whose route reads the body as JSON and answers the same at once.

    .venv/bin/python -m benchmarks.http_ingest

The load comes from a process of its own: keep-alive connections with one request in flight each, built before the clock
starts. Each message is of a known device, and none has an id, so that all of them are stored.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import msgspec
import psutil
import uvloop
from fastapi import FastAPI, Request
from fastapi.responses import Response

from benchmarks.beside import WARM_UP_S, serving
from benchmarks.mqtt import SEED, START_S
from benchmarks.row import Row
from benchmarks.telemetry import payload
from cloud.http_server import HttpServer
from tests.end_to_end.site import Site

DEVICES: Final = 50
SETTLE_S: Final = 60.0


class Load(msgspec.Struct, frozen=True):
    port: int
    token: str
    connections: int
    batch: int
    """Messages in one request."""
    seconds: float


class Answered(msgspec.Struct, frozen=True):
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    requests: int
    """All of them, those before and after the measurement too."""


def rows(seconds: float) -> list[Row]:
    return uvloop.run(_measure(seconds))


async def _measure(seconds: float) -> list[Row]:
    found = []
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        Path(folder).chmod(0o755)
        async with Site(Path(folder)) as site:
            await site.set_up_cloud()
            await site.add_devices("plain", DEVICES)
            token = site.client.headers["Authorization"]
            port = int(site.url.rpartition(":")[2])
            sent = 0
            for connections, batch, goal in ((8, 100, 20_000), (DEVICES, 1, 1_500)):
                load = Load(port, token, connections, batch, seconds)
                before_s = _cpu_s(site.cloud.pid)
                ours = await _generate(load)
                cpu_us = (_cpu_s(site.cloud.pid) - before_s) / ours.requests / batch * 1e6
                sent += ours.requests * batch
                waiting = sent - await _stored(site)
                settled_s = await _settled(site, sent)
                with serving(sys.executable, "-m", "benchmarks.http_ingest", "bare") as bare_port:
                    bare = await _generate(msgspec.structs.replace(load, port=bare_port))
                note = f"{waiting:,} waiting at the end, stored {settled_s:.1f} s later"
                found += _rows(load, ours, bare, goal, cpu_us, note)
    return found


def _rows(load: Load, ours: Answered, bare: Answered, goal: int, cpu_us: float, note: str) -> list[Row]:
    what = f"HTTP ingest, requests of {load.batch}, {load.connections} connections"
    return [
        Row(
            what,
            ours.requests_per_s * load.batch,
            "messages/s",
            goal=goal,
            baseline="uvicorn and FastAPI alone, nothing recorded",
            baseline_measured=bare.requests_per_s * load.batch,
            note=note,
        ),
        Row(f"{what}, answer p50", ours.p50_ms, "ms", baseline="the same", baseline_measured=bare.p50_ms),
        Row(f"{what}, CPU of the cloud's process", cpu_us, "µs/message", note="engines apart"),
        Row(f"{what}, answer p99", ours.p99_ms, "ms", baseline="the same", baseline_measured=bare.p99_ms),
    ]


def _cpu_s(pid: int) -> float:
    """Of the process alone: PostgreSQL and NATS work beside it."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


async def _stored(site: Site) -> int:
    total: dict[str, int] = (await site.get("accounting"))["total"]
    return total["stored"]


async def _settled(site: Site, sent: int) -> float:
    begun = time.monotonic()
    async with asyncio.timeout(SETTLE_S):
        while await _stored(site) < sent:
            await asyncio.sleep(0.05)
    return time.monotonic() - begun


async def _generate(load: Load) -> Answered:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.http_ingest", "load", msgspec.json.encode(load).decode(),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        output, _ = await asyncio.wait_for(process.communicate(), load.seconds + START_S)
    finally:
        if process.returncode is None:
            process.kill()
    return msgspec.json.decode(output, type=Answered)


class _Client(asyncio.Protocol):
    def __init__(self, load: Load, number: int) -> None:
        rng = random.Random(SEED * 1000 + number)
        messages: list[dict[str, Any]] = [
            {
                "network_id": "plain",
                "alias": f"plain-{(number + place) % DEVICES:03}",
                "data": msgspec.Raw(payload(rng, number)),
            }
            for place in range(load.batch)
        ]
        body = msgspec.json.encode(messages if load.batch > 1 else messages[0])
        head = f"POST /api/v1/messages HTTP/1.1\r\nHost: cloud\r\nAuthorization: {load.token}\r\n"
        self._request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        self._held = b""
        self._sent_s = 0.0
        self._last = False
        self.done = asyncio.get_running_loop().create_future()
        self.took_s: list[float] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._held += data
        head, end, body = self._held.partition(b"\r\n\r\n")
        if not end:
            return
        if not head.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"answered {self._held[:500]!r}")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        if len(body) < int(length):
            return
        self._held = b""
        self.took_s.append(time.perf_counter() - self._sent_s)
        if self._last:
            self.done.set_result(None)
            self._transport.close()
        else:
            self._send()

    def end(self) -> None:
        self._last = True

    def _send(self) -> None:
        self._sent_s = time.perf_counter()
        self._transport.write(self._request)


def _itself(client: _Client) -> _Client:
    return client


async def _load(load: Load) -> Answered:
    clients = [_Client(load, number) for number in range(load.connections)]
    for client in clients:
        await asyncio.get_running_loop().create_connection(partial(_itself, client), "127.0.0.1", load.port)
    await asyncio.sleep(WARM_UP_S)
    before, begun = [len(client.took_s) for client in clients], time.perf_counter()
    await asyncio.sleep(load.seconds)
    lasted_s = time.perf_counter() - begun
    took = sorted(took for client, start in zip(clients, before, strict=True) for took in client.took_s[start:])
    for client in clients:
        client.end()
    await asyncio.gather(*(client.done for client in clients))
    return Answered(
        len(took) / lasted_s,
        took[len(took) // 2] * 1000,
        took[len(took) * 99 // 100] * 1000,
        sum(len(client.took_s) for client in clients),
    )


async def _bare() -> None:
    app = FastAPI()

    @app.post("/api/v1/messages")
    async def answer(request: Request) -> Response:
        held = msgspec.json.decode(await request.body())
        one = {"record": "0123456789abcdef/1", "state": "accepted", "device_known": True}
        return Response(msgspec.json.encode([one] * len(held) if isinstance(held, list) else one))

    http = HttpServer("127.0.0.1", 0)
    print(http.port, flush=True)
    await http.serve(app, asyncio.Event())


if __name__ == "__main__":
    if sys.argv[1:2] == ["bare"]:
        uvloop.run(_bare())
    elif sys.argv[1:2] == ["load"]:
        print(msgspec.json.encode(uvloop.run(_load(msgspec.json.decode(sys.argv[2], type=Load)))).decode())
    else:
        for row in rows(float(sys.argv[1]) if sys.argv[1:] else 5.0):
            beside = "" if row.ratio is None else f", {row.ratio:.2f} of {row.baseline}"
            print(f"{row.stage}: {row.measured:,.1f} {row.unit}{beside} {row.note}")
