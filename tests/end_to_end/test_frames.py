"""TCP, UDP and a serial port, from the device's program to the cloud's history, and what is bad input there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.contract.nats_server import free_port
from tests.edge.listeners.frame_world import client
from tests.end_to_end.guides import section
from tests.end_to_end.site import Site
from tests.end_to_end.test_docs import Page

pytestmark = pytest.mark.asyncio(loop_scope="module")

LISTENERS = """
[[tcp]]
name = "lines"
network = "plain"
host = "127.0.0.1"
port = {tcp}
open = true
login = "ID {{serial}}"
ack = "OK {{count}}\\n"
nack = "NO {{code}}\\n"
framing = {{kind = "line", frame_bytes_max = 200}}

[[udp]]
name = "datagrams"
network = "plain"
host = "127.0.0.1"
port = {udp}
open = true
device = "serial:buoy"
ack = "OK\\n"

[[serial]]
name = "meter"
network = "plain"
port = "{serial}"
open = true
device = "serial:meter"
ack = "hex:06"
framing = {{kind = "marked", start = "02", stop = "03", checksum = "CRC-16/MODBUS", gap_ms = 50}}
"""


class FramesSite(Site):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.tcp, self.udp, self.tty = free_port(), free_port(), folder / "ttyUSB0"
        sections = LISTENERS.format(tcp=self.tcp, udp=self.udp, serial=self.tty)
        self.here = {
            "5000": str(free_port()),
            "/dev/ttyUSB0": str(folder / "guided"),
            "127.0.0.1:8080": self.url.removeprefix("http://"),
            "@auth": f"@{folder / 'auth'}",
        }
        sections += "".join(section(guide, self.here) for guide in ("tcp", "udp", "serial"))
        self.edge_toml.write_text(self.edge_toml.read_text() + sections)

    def page(self, name: str) -> Page:
        return Page(f"guides/{name}.md", self.folder, self.here)

    async def listener(self, name: str) -> dict[str, Any]:
        listeners = (await self.gateway_status())["listeners"]
        return next(one for one in listeners if one["name"] == name)

    async def until_stored(self, device: str, expected: list[Any]) -> None:
        """The `n`s of all its messages, in order of their time."""

        async def stored() -> list[Any]:
            found = (await self.get(f"devices/plain:serial:{device}/history"))["items"]
            return sorted(message["data"]["n"] for message in found)

        async def all_stored() -> bool:
            return len(await stored()) >= len(expected)

        await self.until(all_stored)
        assert await stored() == expected


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FramesSite]:
    site = FramesSite(tmp_path_factory.mktemp("frames"))
    async with site:
        await site.set_up()
        (site.folder / "auth").write_text(f"Authorization: {site.client.headers['Authorization']}\n")
        await site.post("networks", {"id": "pumps", "name": "Pumps"})
        for network, name in (("plain", "crane"), ("plain", "buoy"), ("plain", "meter"), ("pumps", "my-pump")):
            alias = {"network_id": network, "alias_key": "serial", "alias": name}
            await site.post("devices", {"system_id": "site", "blueprint_id": "pump", "name": name, "aliases": [alias]})
        yield site


@contextlib.asynccontextmanager
async def meter(site: FramesSite) -> AsyncIterator[asyncio.subprocess.Process]:
    """A pseudo-terminal, whose other end is this program's input and output."""
    process = await asyncio.create_subprocess_exec(
        "socat", "-", f"PTY,link={site.tty},rawer", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )

    async def is_open() -> bool:
        return bool((await site.listener("meter"))["connections"] == 1)

    try:
        await site.until(is_open)
        yield process
    finally:
        process.terminate()
        await process.wait()


async def test_lines_of_nc_are_answered_and_in_history(site: FramesSite) -> None:
    lines = b'ID crane\n{"n":1}\n{"n":2}\r\n'
    assert await client("nc", "-N", "127.0.0.1", str(site.tcp), data=lines) == b"OK 1\nOK 2\n"
    await site.until_stored("crane", [1, 2])


async def test_datagrams_of_socat_are_answered_and_in_history(site: FramesSite) -> None:
    place = f"UDP:127.0.0.1:{site.udp}"
    assert await client("socat", "-t0.1", "-", place, data=b'{"n":1}', waits=True) == b"OK\n"
    await site.until_stored("buoy", [1])


async def test_frames_of_a_serial_port_are_answered_and_in_history(site: FramesSite) -> None:
    assert re.search("is not there; plug the adapter in", (await site.listener("meter"))["trouble"])
    async with meter(site) as device:
        assert device.stdin is not None
        assert device.stdout is not None
        device.stdin.write(bytes.fromhex("ffee00") + frame(b'{"n":1}') + frame(b'{"n":2}'))
        assert await device.stdout.readexactly(2) == b"\x06\x06"
        await site.until_stored("meter", [1, 2])

    async def is_gone() -> bool:
        return bool((await site.listener("meter"))["trouble"])

    await site.until(is_gone)
    async with meter(site) as device:  # another time it is plugged in
        assert device.stdin is not None
        assert device.stdout is not None
        device.stdin.write(frame(b'{"n":3}'))
        assert await device.stdout.readexactly(1) == b"\x06"
    await site.until_stored("meter", [1, 2, 3])


async def test_bad_input_is_answered_counted_and_shown_with_its_bytes(site: FramesSite) -> None:
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
    await site.until_stored("crane", [1, 2, 3])
    await site.until_stored("meter", [1, 2, 3, 4])


async def test_what_does_not_decode_is_a_reject_with_its_bytes_here_and_there(site: FramesSite) -> None:
    assert await client("nc", "-N", "127.0.0.1", str(site.tcp), data=b"ID crane\nno json\n") == b"OK 1\n"

    async def shown() -> bool:
        rejected = (await site.client.get(f"{site.status_url}/rejects")).json()["rejected"]
        return any(one["payload"]["text"] == "no json" and one["alias"] == "crane" for one in rejected)

    await site.until(shown)
    status = await site.command("tidegate-edge", "status", "--config", site.edge_toml, "--json")
    kinds = {one["name"]: (one["kind"], one["place"]) for one in json.loads(status)["listeners"]}
    assert kinds["lines"] == ("tcp", f"127.0.0.1:{site.tcp}")
    assert kinds["datagrams"] == ("udp", f"127.0.0.1:{site.udp}")
    assert kinds["meter"] == ("serial", str(site.tty))
    assert (await site.gateway_status())["closed"]


async def test_a_command_is_a_frame_and_its_answer_is_kept(site: FramesSite) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.tcp)
    writer.write(b"ID crane\n")
    made = await site.post("devices/plain:serial:crane/commands", {"name": "lift", "payload": {"to_m": 3}})
    async with asyncio.timeout(20):
        told = json.loads(await reader.readline())
    assert told == {"command": "lift", "id": made["id"], "payload": {"to_m": 3}}
    writer.write(json.dumps({"response": told["id"], "ok": True}).encode() + b"\n")
    shown: dict[str, Any] = {}

    async def answered() -> bool:
        nonlocal shown
        shown = await site.get(f"devices/plain:serial:crane/commands/{made['id']}")
        return bool(shown["state"] == "acknowledged")

    await site.until(answered)
    assert shown["answer"]["payload"]["ok"] is True
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize(("guide", "value"), [("tcp", "61.5"), ("udp", "62.5"), ("serial", "63.5")])
async def test_what_a_guide_says_works(site: FramesSite, guide: str, value: str) -> None:
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
