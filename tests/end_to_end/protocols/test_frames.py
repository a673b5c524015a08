"""TCP, UDP and a serial port, from the device's program to the cloud's history, and what is bad input there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.edge.listeners.frame_world import client
from tests.end_to_end.protocols.site import ProtocolsSite

pytestmark = pytest.mark.asyncio(loop_scope="package")


@pytest_asyncio.fixture(scope="module", loop_scope="package", autouse=True)
async def devices(site: ProtocolsSite) -> None:
    for name in ("crane", "buoy", "meter"):
        await site.add_device("plain", name)


async def until_stored(site: ProtocolsSite, device: str, expected: list[Any]) -> None:
    """The `n`s of all its messages."""

    async def all_stored() -> bool:
        return len(await site.stored(f"plain:serial:{device}", "n")) >= len(expected)

    await site.until(all_stored)
    assert sorted(await site.stored(f"plain:serial:{device}", "n")) == expected


@contextlib.asynccontextmanager
async def meter(site: ProtocolsSite) -> AsyncIterator[asyncio.subprocess.Process]:
    """A pseudo-terminal, whose other end is this program's input and output."""
    process = await asyncio.create_subprocess_exec(
        "socat", "-", f"PTY,link={site.meter},rawer", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )

    async def is_open() -> bool:
        return bool((await site.listener("meter"))["connections"] == 1)

    try:
        await site.until(is_open)
        yield process
    finally:
        process.terminate()
        await process.wait()


async def test_lines_of_nc_are_answered_and_in_history(site: ProtocolsSite) -> None:
    lines = b'ID crane\n{"n":1}\n{"n":2}\r\n'
    assert await client("nc", "-N", "127.0.0.1", str(site.tcp), data=lines) == b"OK 1\nOK 2\n"
    await until_stored(site, "crane", [1, 2])


async def test_datagrams_of_socat_are_answered_and_in_history(site: ProtocolsSite) -> None:
    place = f"UDP:127.0.0.1:{site.udp}"
    assert await client("socat", "-t0.1", "-", place, data=b'{"n":1}', waits=True) == b"OK\n"
    await until_stored(site, "buoy", [1])


async def test_frames_of_a_serial_port_are_answered_and_in_history(site: ProtocolsSite) -> None:
    assert re.search("is not there; plug the adapter in", (await site.listener("meter"))["trouble"])
    async with meter(site) as device:
        assert device.stdin is not None
        assert device.stdout is not None
        device.stdin.write(bytes.fromhex("ffee00") + frame(b'{"n":1}') + frame(b'{"n":2}'))
        assert await device.stdout.readexactly(2) == b"\x06\x06"
        await until_stored(site, "meter", [1, 2])

    async def is_gone() -> bool:
        return bool((await site.listener("meter"))["trouble"])

    await site.until(is_gone)
    async with meter(site) as device:  # another time it is plugged in
        assert device.stdin is not None
        assert device.stdout is not None
        device.stdin.write(frame(b'{"n":3}'))
        assert await device.stdout.readexactly(1) == b"\x06"
    await until_stored(site, "meter", [1, 2, 3])


async def test_bad_input_is_answered_counted_and_shown_with_its_bytes(site: ProtocolsSite) -> None:
    before = (await site.gateway_status())["turned_away"]
    long = b"x" * 300
    answer = await client("nc", "-N", "127.0.0.1", str(site.tcp), data=b"ID crane\n" + long + b'\n{"n":3}\nhalf')
    assert sorted(answer.splitlines()) == [b"NO half_frame", b"NO oversize", b"OK 1"]
    assert await client("nc", "-N", "127.0.0.1", str(site.tcp), data=b"GET / HTTP/1.1\r\n\r\n") == b""
    async with meter(site) as device:
        assert device.stdin is not None
        assert device.stdout is not None
        device.stdin.write(b"noise" + frame(b'{"n":4}').replace(b"4", b"5") + frame(b'{"n":4}'))
        assert await device.stdout.readexactly(1) == b"\x06"

    async def counted() -> bool:
        turned_away = (await site.gateway_status())["turned_away"]
        codes = ("oversize", "half_frame", "login", "noise", "checksum")
        return all(turned_away.get(code, 0) > before.get(code, 0) for code in codes)

    await site.until(counted)
    refused = (await site.client.get(f"{site.status_url}/rejects")).json()["refused"]
    by_code = {one["code"]: one for one in reversed(refused)}
    assert by_code["oversize"]["payload"]["text"] == long.decode()
    assert by_code["login"]["payload"]["text"] == "GET / HTTP/1.1"
    assert by_code["login"]["listener"] == "lines"
    assert by_code["noise"]["payload"]["text"] == "noise"
    assert b'{"n":5}' in bytes.fromhex(by_code["checksum"]["payload"]["hex"])
    await until_stored(site, "crane", [1, 2, 3])
    await until_stored(site, "meter", [1, 2, 3, 4])


async def test_what_does_not_decode_is_a_reject_with_its_bytes_here_and_there(site: ProtocolsSite) -> None:
    assert await client("nc", "-N", "127.0.0.1", str(site.tcp), data=b"ID crane\nno json\n") == b"OK 1\n"

    async def shown() -> bool:
        rejected = (await site.client.get(f"{site.status_url}/rejects")).json()["rejected"]
        return any(one["payload"]["text"] == "no json" and one["alias"] == "crane" for one in rejected)

    await site.until(shown)
    status = await site.command("tidegate-edge", "status", "--config", site.edge_toml, "--json")
    kinds = {one["name"]: (one["kind"], one["place"]) for one in json.loads(status)["listeners"]}
    assert kinds["lines"] == ("tcp", f"127.0.0.1:{site.tcp}")
    assert kinds["datagrams"] == ("udp", f"127.0.0.1:{site.udp}")
    assert kinds["meter"] == ("serial", str(site.meter))
    assert (await site.gateway_status())["closed"]


async def test_a_command_is_a_frame_and_its_answer_is_kept(site: ProtocolsSite) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.tcp)
    writer.write(b"ID crane\n")
    command = await site.command_device("plain:serial:crane", "lift", {"to_m": 3})
    async with asyncio.timeout(20):
        told = json.loads(await reader.readline())
    assert told == {"command": "lift", "id": command, "payload": {"to_m": 3}}
    writer.write(json.dumps({"response": told["id"], "ok": True}).encode() + b"\n")
    shown = await site.until_command("plain:serial:crane", command, "acknowledged")
    assert shown["answer"]["payload"]["ok"] is True
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize(("guide", "value"), [("tcp", "61.5"), ("udp", "62.5"), ("serial", "63.5")])
async def test_what_a_guide_says_works(site: ProtocolsSite, guide: str, value: str) -> None:
    page = site.page(guide)
    assert (await page.type_in("temperature")).startswith("OK")
    await page.until(f'"value":{value}', "my-pump/current")


def frame(payload: bytes) -> bytes:
    """As the meter sends it; the CRC bit by bit, as its maker would."""
    crc = 0xFFFF
    for byte in payload:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return b"\x02" + payload + crc.to_bytes(2, "little") + b"\x03"
