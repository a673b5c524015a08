"""curl, as devices' scripts and people use it, against a real listener."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge.listeners.http.listener import HttpListener
from protocols.messages import Command
from tests.contract.certificates import Authority
from tests.edge.listeners.http_world import listening
from tests.edge.listeners.mqtt_world import ANSWER_S, World, until


@pytest.fixture
async def world() -> World:
    return World()


@pytest.fixture
async def listener(world: World) -> AsyncIterator[HttpListener]:
    async with listening(world) as made:
        yield made


async def curl(*arguments: str) -> str:
    program = shutil.which("curl")
    assert program is not None, "curl is missing: apt-get install curl"
    process = await asyncio.create_subprocess_exec(
        program, "-sS", "-i", "-m", str(int(ANSWER_S)), *arguments,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return output.decode()


async def test_curl_is_answered_when_the_record_is_safe(world: World, listener: HttpListener) -> None:
    world.bus.hold()
    sent = asyncio.create_task(curl("-u", "pump:pump-secret", f"127.0.0.1:{listener.port}/pump", "-d", '{"t":1}'))
    await world.bus.reached(1)
    assert not sent.done()
    world.bus.release()
    assert (await sent).startswith("HTTP/1.1 204 No Content\r\n")
    assert world.bus.records[0].payload == b'{"t":1}'


async def test_curl_sends_a_file_in_chunks_and_puts(world: World, listener: HttpListener, tmp_path: Path) -> None:
    file = tmp_path / "values.json"
    file.write_bytes(b"[" + b",".join(b'{"n":%d}' % number for number in range(20_000)) + b"]")
    url = f"127.0.0.1:{listener.port}/pump"
    bearer = ("-H", "Authorization: Bearer pump-secret", "-H", "Expect: 100-continue")
    for how in (("-H", "Transfer-Encoding: chunked", "-T", str(file)), ("--data-binary", f"@{file}")):
        assert "HTTP/1.1 204 No Content\r\n" in await curl(*bearer, *how, url)
    assert [record.payload for record in world.bus.records] == [file.read_bytes()] * 2


async def test_curl_fetches_a_command_confirms_it_and_answers(world: World, listener: HttpListener) -> None:
    url, who = f"127.0.0.1:{listener.port}/pump", ("-u", "pump:pump-secret")
    polling = asyncio.create_task(curl(*who, f"{url}/down?wait=9"))
    await until(lambda: listener.way("serial", "pump") is not None)
    way = listener.way("serial", "pump")
    assert way is not None
    sending = asyncio.create_task(way.send(Command("c-1", 1, "valve", b'{"open":true}', 0)))
    got = await polling
    assert "Tidegate-Command: valve\r\nTidegate-Command-Id: c-1\r\n" in got
    assert got.endswith('\r\n\r\n{"open":true}')
    assert not sending.done()
    assert "HTTP/1.1 204 No Content" in await curl(*who, "-X", "POST", f"{url}/down/c-1/received")
    await sending
    assert "HTTP/1.1 204 No Content" in await curl(*who, f"{url}/response/c-1", "-d", '{"ok":true}')
    assert (world.bus.records[0].origin.topic, world.bus.records[0].origin.codec) == ("pump/response/c-1", "response")


async def test_curl_over_tls(world: World, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = authority.issue("localhost")
    options = {"tls_cert": str(server.cert), "tls_key": str(server.key)}
    async with listening(world, **options) as listener:
        url = f"https://localhost:{listener.port}/pump"
        said = await curl("-4", "--cacert", str(authority.certificate), "-u", "pump:pump-secret", url, "-d", "1")
    assert said.startswith("HTTP/1.1 204 No Content")


async def test_curl_with_a_certificate_is_the_device_that_it_names(world: World, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server, pump = authority.issue("localhost"), authority.issue("pump")
    options = {
        "tls_cert": str(server.cert), "tls_key": str(server.key), "tls_client_ca": str(authority.certificate),
    }  # fmt: skip
    async with listening(world, templates=["up", "{serial}"], **options) as listener:
        shown = ("-4", "--cacert", str(authority.certificate), "--cert", str(pump.cert), "--key", str(pump.key))
        said = [await curl(*shown, f"https://localhost:{listener.port}/{path}", "-d", "1") for path in ("up", "other")]
    assert [lines.split()[1] for lines in said] == ["204", "403"]
    assert world.bus.records[0].origin.alias == "pump"
