"""The status API over HTTP, of a gateway that runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families

from edge.cli.tail import last_rejected
from edge.status.rejects import Rejections
from edge.status.server import CONNECTIONS_MAX, REQUEST_HEAD_BYTES_MAX
from edge.status.tail import CLIENTS_MAX
from protocols.batch import encode_records
from sync.bus.zeromq import ZeroMqBus
from tests.edge.site import PATIENCE_S, RunningSite, Site
from tests.edge.test_recorder import batch

pytestmark = pytest.mark.servers


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[RunningSite]:
    site = Site(tmp_path)
    await site.furnish()
    async with site.gateway() as running:
        yield running


async def publish(gateway: RunningSite, *payloads: bytes, counter: int = 0) -> None:
    """Records of the pump, resolved when it returns."""
    bus = ZeroMqBus.connect(gateway.bus)
    made = batch(counter, list(payloads))
    await bus.publish("inbound", encode_records(made), key=made.key)
    await bus.close()
    await gateway.until(lambda seen: seen.resolver.records >= len(payloads))


async def test_the_page_is_one_file_that_asks_for_nothing_elsewhere(gateway: RunningSite) -> None:
    page = await gateway.http.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "<script>" in page.text
    for outside in ("src=", "@import", 'href="http', "url("):
        assert outside not in page.text


async def test_latest_and_rejects(gateway: RunningSite) -> None:
    await publish(gateway, b'{"temperature":71.5}', b'{"temperature":')
    (device,) = (await gateway.http.get("/latest")).json()["devices"]
    assert (device["alias"], device["values"]["temperature"]["value"]) == ("pump", 71.5)
    rejections = (await gateway.http.get("/rejects")).json()
    assert rejections["rejected_counts"] == {"undecodable": 1}
    assert rejections["rejected"][0]["payload"]["text"] == '{"temperature":'


async def test_metrics_are_what_prometheus_reads_and_what_the_accounting_says(gateway: RunningSite) -> None:
    await publish(gateway, b'{"n":1}', b"x")
    text = (await gateway.http.get("/metrics")).text
    samples = {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.labels
    }
    totals = (await gateway.accounting()).totals
    assert samples["tidegate_edge_records_logged_total"] == totals.logged == 2
    assert samples["tidegate_edge_records_pending"] == totals.pending == 2
    assert samples["tidegate_edge_resolver_rejected_total"] == 1
    assert samples["tidegate_edge_link_up"] == 0
    assert 'tidegate_edge_connections{listener="mqtt"} 0.0' in text


async def test_rates_are_sampled(gateway: RunningSite) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not (seconds := (await gateway.http.get("/rates")).json()["seconds"]):
            await asyncio.sleep(0.05)
    assert len(seconds[0]) == 5


@contextlib.asynccontextmanager
async def tail(gateway: RunningSite, query: str = "") -> AsyncIterator[httpx.Response]:
    async with gateway.http.stream("GET", f"/tail{query}") as stream:
        yield stream


async def next_event(lines: AsyncIterator[str]) -> str:
    async with asyncio.timeout(PATIENCE_S):
        async for line in lines:
            if line.startswith("data: "):
                return line.removeprefix("data: ")
    raise AssertionError("the tail ended")


async def test_a_tail_shows_what_comes(gateway: RunningSite) -> None:
    async with tail(gateway, "?device=pump&rejected=1") as stream:
        lines = stream.aiter_lines()
        await anext(lines)
        await publish(gateway, b'{"n":1}', b"rubbish")
        event = await next_event(lines)
    assert '"kind":"rejected"' in event
    assert '"text":"rubbish"' in event


async def test_a_client_that_goes_makes_room_at_once(gateway: RunningSite) -> None:
    async with contextlib.AsyncExitStack() as open_tails:
        held = []  # httpx closes a stream whose iterator nobody holds
        for _ in range(CLIENTS_MAX):
            stream = await open_tails.enter_async_context(tail(gateway))
            held.append(stream.aiter_raw())
            await anext(held[-1])
        refused = await gateway.http.get("/tail")
        assert (refused.status_code, refused.json()["code"]) == (503, "limit")
    async with asyncio.timeout(PATIENCE_S):
        while True:
            async with tail(gateway) as stream:
                if stream.status_code == 200:
                    break
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "code"),
    [
        ("GET", "/nowhere", {}, 404, "not_found"),
        ("POST", "/accounting", {}, 405, "method"),
        ("GET", "/accounting", {"Host": "evil.example:8081"}, 403, "host"),
        ("GET", "/accounting", {"Host": "127.0.0.1.evil.example"}, 403, "host"),
        ("GET", "/accounting", {"Host": ""}, 403, "host"),
        ("GET", "/accounting", {"X-Long": "x" * (2 * REQUEST_HEAD_BYTES_MAX)}, 431, "malformed"),
    ],
)
async def test_what_is_not_for_it_gets_a_clear_answer(
    gateway: RunningSite, method: str, path: str, headers: dict[str, Any], status: int, code: str
) -> None:
    answer = await gateway.http.request(method, path, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert (await gateway.http.get("/healthz")).status_code == 200


@pytest.mark.parametrize("host", ["localhost:8081", "localhost", "127.0.0.1", "[::1]:8081", "[::1]"])
async def test_this_machine_may_be_called_by_its_own_names(gateway: RunningSite, host: str) -> None:
    assert (await gateway.http.get("/healthz", headers={"Host": host})).status_code == 200


async def test_rubbish_and_silence_disturb_nobody(gateway: RunningSite) -> None:
    port = gateway.http.base_url.port
    for rubbish in (
        b"\x16\x03\x01\x02\x00\x01",
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(rubbish)
        writer.write_eof()
        async with asyncio.timeout(PATIENCE_S):
            assert (await reader.read()).startswith((b"HTTP/1.1 4", b""))
        writer.close()
    silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(CONNECTIONS_MAX - 1)]
    assert (await gateway.http.get("/healthz")).status_code == 200
    for _, writer in silent:
        writer.close()


async def test_head_gives_the_head_alone(gateway: RunningSite) -> None:
    answer = await gateway.http.head("/accounting")
    assert answer.status_code == 200
    assert int(answer.headers["content-length"]) > 100
    assert answer.content == b""


async def test_connections_that_are_kept_open_end_with_the_gateway_and_nothing_is_reported(tmp_path: Path) -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    site = Site(tmp_path)
    await site.furnish()
    async with contextlib.AsyncExitStack() as held:
        async with site.gateway() as gateway:
            ends = []
            for request in (b"", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET /healthz HT"):
                reader, writer = await asyncio.open_connection("127.0.0.1", gateway.http.base_url.port)
                held.callback(writer.close)
                writer.write(request)
                if request.endswith(b"\r\n\r\n"):
                    assert (await reader.readuntil(b"ok\n")).startswith(b"HTTP/1.1 200")
                ends.append(reader)
            assert (await gateway.http.get("/healthz")).status_code == 200
        for reader in ends:
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
    assert reported == []


async def test_what_was_rejected_before_is_shown_first_by_the_tail(gateway: RunningSite) -> None:
    await publish(gateway, *(b"rubbish %d" % number for number in range(12)))
    known = await gateway.get("/rejects", Rejections)
    shown = last_rejected(known, "pump")
    assert [event.payload.text for event in shown] == [f"rubbish {number}" for number in range(2, 12)]
    assert last_rejected(known, "another") == []


async def test_a_network_that_the_project_does_not_have_is_said(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.config = msgspec.structs.replace(
        site.config, mqtt=(msgspec.structs.replace(site.config.mqtt[0], network="qay"),)
    )
    await site.furnish()
    with structlog.testing.capture_logs() as said:
        async with site.gateway() as running:
            (listener,) = (await running.accounting()).listeners
    assert not listener.network_known
    (warning,) = [one for one in said if one["event"] == "network is not known"]
    assert (warning["listener"], warning["reason"]) == ("mqtt", "network qay is not in project demo")
