"""OSCORE, with aiocoap as the device: who has a security context is its device."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiocoap
import pytest
from aiocoap.oscore import FilesystemSecurityContext

from edge.listeners.coap.listener import CoapListener
from protocols.coap.message import uint
from protocols.coap.numbers import Code, Option
from protocols.messages import Command
from tests.edge.listeners.coap_world import Client, World
from tests.edge.listeners.mqtt_world import ANSWER_S
from tidegate.console import UserError

SECRET = "000102030405060708090a0b0c0d0e0f"


def context(folder: Path, sender: str, recipient: str, secret: str = SECRET) -> Path:
    folder.mkdir(parents=True)
    settings = {"sender-id_hex": sender, "recipient-id_hex": recipient, "secret_hex": secret}
    (folder / "settings.json").write_text(json.dumps(settings))
    return folder


@contextlib.asynccontextmanager
async def device(folder: Path, listener: CoapListener) -> AsyncIterator[aiocoap.Context]:
    """aiocoap's client with the context of a folder."""
    client = await aiocoap.Context.create_client_context(transports=["oscore", "simple6"])
    security = FilesystemSecurityContext(str(folder))
    client.client_credentials[f"coap://127.0.0.1:{listener.port}/*"] = security
    try:
        yield client
    finally:
        await client.shutdown()
        security._destroy()


def uri(listener: CoapListener, path: str) -> str:
    return f"coap://127.0.0.1:{listener.port}/{path}"


async def posted(client: aiocoap.Context, to: str, payload: bytes) -> aiocoap.Message:
    request = aiocoap.Message(code=aiocoap.POST, uri=to, payload=payload)
    async with asyncio.timeout(ANSWER_S):
        return await client.request(request).response


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """The listener's folder, and the device's context."""
    context(tmp_path / "contexts" / "serial:pump", "01", "02")
    return tmp_path / "contexts", context(tmp_path / "device", "02", "01")


async def test_a_device_is_known_by_its_context(folders: tuple[Path, Path]) -> None:
    world = World()
    theirs, own = folders
    async with world.listening(oscore=str(theirs)) as listener, device(own, listener) as client:
        assert (await posted(client, uri(listener, "sensors/pump/up"), b"1")).code == aiocoap.CHANGED
        assert (await posted(client, uri(listener, "pump"), 3000 * b"x")).code == aiocoap.CHANGED
        refused = await posted(client, uri(listener, "other"), b"2")
        assert refused.code == aiocoap.FORBIDDEN
        assert b"another device" in refused.payload
    assert [record.payload for record in world.bus.records] == [b"1", 3000 * b"x"]
    assert {record.origin.alias for record in world.bus.records} == {"pump"}


async def test_commands_are_protected_too(folders: tuple[Path, Path]) -> None:
    world = World()
    theirs, own = folders
    async with world.listening(oscore=str(theirs)) as listener, device(own, listener) as client:
        request = client.request(aiocoap.Message(code=aiocoap.GET, uri=uri(listener, "pump/down"), observe=0))
        async with asyncio.timeout(ANSWER_S):
            assert (await request.response).code == aiocoap.CONTENT
            told = aiter(request.observation)
            way = listener.way("serial", "pump")
            assert way is not None
            for name in ("first", "second"):
                sending = asyncio.create_task(way.send(Command("c1", 1, name, b"", 0)))
                assert json.loads((await anext(told)).payload) == {"command": name, "id": "c1"}
                await sending
        request.observation.cancel()


async def test_after_a_crash_the_first_request_is_challenged_and_then_taken(folders: tuple[Path, Path]) -> None:
    world = World()
    theirs, own = folders
    (theirs / "serial:pump" / "sequence.json").write_text(json.dumps({"next-to-send": 50, "received": "unknown"}))
    async with world.listening(oscore=str(theirs)) as listener, device(own, listener) as client:
        assert (await posted(client, uri(listener, "pump"), b"1")).code == aiocoap.CHANGED
    assert len(world.bus.records) == 1
    assert json.loads((theirs / "serial:pump" / "sequence.json").read_text())["received"] != "unknown"


@pytest.mark.parametrize(
    ("option", "code"),
    [
        (b"\x09\x00\x63", Code.UNAUTHORIZED),
        (b"\x09\x00\x02", Code.BAD_REQUEST),
        (b"\x29\x00\x02", Code.BAD_OPTION),
        (b"\x0f" + bytes(7) + b"\x02", Code.BAD_OPTION),
        (b"\x10", Code.BAD_REQUEST),
        (b"\xc0", Code.BAD_OPTION),
        (b"", Code.UNAUTHORIZED),
    ],
)
async def test_what_is_not_protected_by_a_context_here(folders: tuple[Path, Path], option: bytes, code: int) -> None:
    world = World()
    async with world.listening(oscore=str(folders[0])) as listener, Client.to(listener.port) as client:
        how = ((int(Option.OSCORE), option), (int(Option.OBSERVE), uint(0)))
        answer = await client.posts("pump", 20 * b"x", options=how)
        assert answer.code == code
        assert sum(listener.refusals.counts.values()) == 1
    assert world.bus.records == []


async def test_without_contexts_a_protected_message_is_not_understood() -> None:
    async with World().listening() as listener, Client.to(listener.port) as client:
        answer = await client.posts("pump", 20 * b"x", options=((int(Option.OSCORE), b"\x09\x00\x02"),))
        assert answer.code == Code.BAD_OPTION


async def test_a_context_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    world = World()

    async def said() -> str:
        with pytest.raises(UserError) as raised:
            async with world.listening(oscore=str(tmp_path / "contexts")):
                pass
        return str(raised.value)

    assert "No such file or directory" in await said()
    (tmp_path / "contexts" / "pump").mkdir(parents=True)
    assert "'pump' is no KEY:ALIAS" in await said()
    (tmp_path / "contexts" / "pump").rename(tmp_path / "contexts" / "serial:pump")
    assert "Configuration key missing" in await said()
    context(tmp_path / "contexts" / "serial:a", "01", "02")
    (tmp_path / "contexts" / "serial:pump" / "settings.json").write_text(
        (tmp_path / "contexts" / "serial:a" / "settings.json").read_text()
    )
    assert "serial:a has the same recipient-id" in await said()
    (tmp_path / "contexts" / "serial:pump" / "settings.json").unlink()
    assert "Configuration key missing" in await said(), "nothing is held by those before"
