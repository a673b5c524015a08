"""HTTP: requests a second to the durable answer. The baseline is h11 alone, which answers each request at once.

    .venv/bin/python -m benchmarks.http            both in front of a bus that takes everything at once

The load comes from a process of its own: keep-alive connections with one request in flight each, built before the clock
starts.
"""

from __future__ import annotations

import asyncio
import random
import time
from functools import partial
from typing import Final, cast

import h11

from benchmarks.beside import SECRET, WARM_UP_S, Beside, listen, main
from benchmarks.mqtt import SEED
from benchmarks.row import Row
from benchmarks.telemetry import payload

CONNECTIONS: Final = 50
BESIDE: Final = Beside("benchmarks.http")


def rows(seconds: float) -> list[Row]:
    ours = BESIDE.answers_per_s("listener", seconds)
    bare = BESIDE.answers_per_s("bare", seconds)
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


def _itself(device: _Device) -> _Device:
    return device


async def _generate(port: int, seconds: float) -> float:
    """Answers a second."""
    devices = [_Device(number) for number in range(CONNECTIONS)]
    for device in devices:
        await asyncio.get_running_loop().create_connection(partial(_itself, device), "127.0.0.1", port)
    await asyncio.sleep(WARM_UP_S)
    before, begun = sum(device.answers for device in devices), time.perf_counter()
    await asyncio.sleep(seconds)
    return (sum(device.answers for device in devices) - before) / (time.perf_counter() - begun)


async def _listen() -> None:
    from edge.listeners.http.config import HttpConfig
    from edge.listeners.http.listener import HttpListener

    config = HttpConfig("http", "bench", host="127.0.0.1", port=0)
    await listen(partial(HttpListener, config))


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


if __name__ == "__main__":
    main(__doc__, rows, listener=_listen, bare=_serve_bare, load=_generate)
