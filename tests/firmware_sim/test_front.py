"""The front before the cloud: it answers every request with the same refusal, or with nothing."""

from __future__ import annotations

import asyncio
import contextlib

import httpx
import pytest

from firmware_sim.faults.front import CONNECTIONS_MAX, HEAD_BYTES_MAX, Front, Refusal

pytestmark = pytest.mark.servers


async def test_it_refuses_every_request() -> None:
    front = Front(Refusal(429, 7))
    url = f"http://127.0.0.1:{await front.start()}/link/v1"
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(url)
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "7")
        front.refusal = Refusal(500)
        answer = await client.post(url, json={})
        assert (answer.status_code, "Retry-After" in answer.headers) == (500, False)
    assert front.requests == 2
    await front.close()


async def test_it_can_say_nothing_at_all_until_it_closes() -> None:
    front = Front(Refusal(None))
    reader, writer = await asyncio.open_connection("127.0.0.1", await front.start())
    writer.write(b"GET / HTTP/1.1\r\nHost: cloud\r\n\r\n")
    while not front.requests:
        await asyncio.sleep(0.001)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.1)
    await front.close()
    assert await reader.read() == b""
    writer.close()


async def test_what_is_no_request_and_whoever_is_one_too_many_is_let_go() -> None:
    front = Front(Refusal(None))
    port = await front.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"x" * (2 * HEAD_BYTES_MAX))
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()
    open_ones = [await asyncio.open_connection("127.0.0.1", port) for _ in range(CONNECTIONS_MAX + 1)]
    async with asyncio.timeout(5):
        assert await open_ones[-1][0].read() == b""
    await front.close()
    for _, writer in open_ones:
        writer.close()
