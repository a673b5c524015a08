"""CoAP clients that nobody here wrote, against a real listener: libcoap's coap-client, and aiocoap's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiocoap
import pytest

from edge.listeners.coap.listener import CoapListener
from protocols.messages import Command, Priority
from tests.contract.coap_client import said, start
from tests.edge.listeners.coap_world import KEY, World
from tests.edge.listeners.mqtt_world import ANSWER_S, until

REBOOT = Command("c1", 1, "reboot", b'{"in_s":3}', 0)


@pytest.fixture
async def world() -> World:
    return World()


@pytest.fixture
async def listener(world: World) -> AsyncIterator[CoapListener]:
    async with world.listening(host="::") as made:
        yield made


@pytest.fixture
async def client() -> AsyncIterator[aiocoap.Context]:
    made = await aiocoap.Context.create_client_context(transports=["simple6"])
    yield made
    await made.shutdown()


def uri(listener: CoapListener, path: str, query: str = KEY, host: str = "127.0.0.1") -> str:
    return f"coap://{host}:{listener.port}/{path}" + (f"?{query}" if query else "")


async def test_coap_client_is_answered_when_the_record_is_safe(world: World, listener: CoapListener) -> None:
    world.bus.hold()
    process = await start("-m", "post", "-t", "cbor", "-e", "x", uri(listener, "sensors/pump/up"))
    await world.bus.reached(1)
    assert process.returncode is None
    world.bus.release()
    assert await process.communicate() == (b"", b"")
    (record,) = world.bus.records
    assert (record.payload, record.origin.alias, record.origin.codec) == (b"x", "pump", "cbor")


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
async def test_coap_client_need_not_wait(world: World, listener: CoapListener, host: str) -> None:
    assert await said("-N", "-m", "put", "-e", "71.5", uri(listener, "pump", host=host)) == ("", "")
    assert [record.payload for record in world.bus.records] == [b"71.5"]


async def test_coap_client_sends_a_file_in_blocks(world: World, listener: CoapListener, tmp_path: Path) -> None:
    body = bytes(range(256)) * 100
    (tmp_path / "body").write_bytes(body)
    assert await said("-m", "post", "-b", "256", "-f", str(tmp_path / "body"), uri(listener, "pump")) == ("", "")
    assert [record.payload for record in world.bus.records] == [body]


@pytest.mark.parametrize(
    ("path", "query", "answer"),
    [
        ("pump", "key=wrong", "4.01 wrong password, or no device of this name"),
        ("pump", "", "4.01 no credentials: add ?key=PASSWORD"),
        ("a/b/c", KEY, "4.04 /a/b/c fits none of /sensors/{serial}/up, /{serial}"),
    ],
)
async def test_coap_client_prints_what_is_wrong(listener: CoapListener, path: str, query: str, answer: str) -> None:
    _, errors = await said("-m", "post", "-e", "x", uri(listener, path, query))
    assert answer in errors


async def test_coap_client_finds_what_there_is(listener: CoapListener) -> None:
    found, _ = await said("-m", "get", uri(listener, ".well-known/core", "rt=tidegate.commands"))
    assert found.startswith('</sensors/%7Bserial%7D/down>;rt="tidegate.commands"')


async def test_coap_client_observes_a_command_and_answers_it(world: World, listener: CoapListener) -> None:
    process = await start("-m", "get", "-s", str(int(ANSWER_S)), "-w", uri(listener, "pump/down"))
    try:
        await until(lambda: listener.way("serial", "pump") is not None)
        way = listener.way("serial", "pump")
        assert way is not None
        async with asyncio.timeout(ANSWER_S):
            await way.send(REBOOT)
            assert process.stdout is not None
            told = (await process.stdout.readline()).strip() or (await process.stdout.readline()).strip()
        assert json.loads(told) == {"command": "reboot", "id": "c1", "payload": {"in_s": 3}}
        assert await said("-m", "post", "-e", '{"ok":true}', uri(listener, "pump/response/c1")) == ("", "")
    finally:
        process.kill()
        await process.wait()
    (record,) = world.bus.records
    assert (record.origin.topic, record.origin.codec) == ("pump/response/c1", "response")
    assert record.origin.priority is Priority.EVENT


async def test_aiocoap_posts_small_and_large(world: World, listener: CoapListener, client: aiocoap.Context) -> None:
    bodies = [b"1", 50_000 * b"x"]
    for body in bodies:
        request = aiocoap.Message(code=aiocoap.POST, uri=uri(listener, "sensors/pump/up"), payload=body)
        request.opt.content_format = 110
        assert (await client.request(request).response).code == aiocoap.CHANGED
    assert [record.payload for record in world.bus.records] == bodies
    assert {record.origin.codec for record in world.bus.records} == {"senml"}


async def test_aiocoap_observes_commands_large_ones_too(listener: CoapListener, client: aiocoap.Context) -> None:
    request = client.request(aiocoap.Message(code=aiocoap.GET, uri=uri(listener, "pump/down"), observe=0))
    async with asyncio.timeout(ANSWER_S):
        await request.response
        told = aiter(request.observation)
        way = listener.way("serial", "pump")
        assert way is not None
        for command in (REBOOT, Command("c2", 1, "set", b'"' + 5000 * b"x" + b'"', 0)):
            sending = asyncio.create_task(way.send(command))
            assert json.loads((await anext(told)).payload)["id"] == command.id
            await sending
    request.observation.cancel()
