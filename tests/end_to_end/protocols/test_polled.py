"""Devices that need no connection of their own kept: the guides of docs/guides/, their configuration and their commands
as they stand there, on a site of real processes."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.end_to_end.protocols.site import ProtocolsSite
from tests.end_to_end.test_docs import Page

pytestmark = pytest.mark.asyncio(loop_scope="package")

COMMAND_S = 30.0
PUMP = "pumps:serial:my-pump"


async def current(site: ProtocolsSite) -> dict[str, Any]:
    found = (await site.get(f"devices/{PUMP}/current"))["attributes"]
    return {name: held["value"] for name, held in found.items()}


async def until_current(site: ProtocolsSite, **values: Any) -> None:
    """However busy the machine is; a guide's own command then shows it at once."""

    async def is_there() -> bool:
        return values.items() <= (await current(site)).items()

    await site.until(is_there)


async def test_modbus(site: ProtocolsSite) -> None:
    page = site.page("modbus")
    assert "boilers" in await page.type_in("config check")
    assert "cannot be reached" in await page.type_in("tidegate-edge status")
    await site.units.start()
    await until_current(site, flow_temperature=0.7, setpoint=20.0, running=True)
    assert (await site.listener("boilers"))["trouble"] == ""
    command = await site.command_device(PUMP, "setpoint", 35.5)
    await site.until_command(PUMP, command, "delivered")
    await until_current(site, setpoint=35.5)
    assert '"value":35.5' in await page.type_in("my-pump/current")
    assert {20.0, 35.5} <= set(await site.stored(PUMP, "setpoint"))


async def test_http(site: ProtocolsSite) -> None:
    page = site.page("http")
    assert "204 No Content" in await page.type_in("-u my-pump:PASSWORD", "temperature")
    await until_current(site, temperature=71.5)
    assert '"value":71.5' in await page.type_in("my-pump/current")
    assert 71.5 in await site.stored(PUMP, "temperature")
    refused = await page.type_in("my-pump:wrong")
    assert "401 Unauthorized" in refused
    assert '"remedy":"make the device a new credential' in refused
    broken = site.page("http").find("temperature").replace('{"temperature": 71.5}', "no JSON")
    assert "204 No Content" in await page.shell(broken)  # it is recorded, and waits among the rejects

    async def has_rejected_it() -> bool:
        return any(item["payload_text"] == "no JSON" for item in (await site.get("rejects"))["items"])

    await site.until(has_rejected_it)
    poll = page.find("down?wait=30")
    assert "HTTP/1.1 204" in await page.shell(poll.replace("wait=30", "wait=0"))
    command = await site.command_device(PUMP, "reboot", {"delay_s": 5})
    got = await page.shell(poll)
    assert got.endswith('{"delay_s":5}')
    assert f"Tidegate-Command: reboot\r\nTidegate-Command-Id: {command}\r\n" in got
    page.replaced["/ID"] = f"/{command}"
    assert "204 No Content" in await page.type_in("/received")
    await site.until_command(PUMP, command, "delivered")
    assert "204 No Content" in await page.type_in("/response/ID")
    await site.until_command(PUMP, command, "acknowledged")
    http = await site.listener("http")
    assert (http["kind"], http["recorded"], http["auth_failures"]) == ("http", 3, 1)


async def test_broker(site: ProtocolsSite) -> None:
    page = site.page("broker")
    assert (await site.listener("hall"))["trouble"].startswith(f"broker 127.0.0.1:{site.broker.port} cannot be reached")
    await site.start_broker()
    await page.type_in("mosquitto_pub", "sensors/my-pump/up")
    await until_current(site, temperature=61.5)
    assert '"value":61.5' in await page.type_in("my-pump/current")
    assert "hall" in await page.type_in("tidegate-edge status")
    await page.type_in("response/ID")


async def test_a_killed_gateway_loses_nothing_of_a_broker(site: ProtocolsSite) -> None:
    published = []
    await site.start_broker()

    async def publish(first: int) -> None:
        """Slow enough that the gateway is killed in between."""
        for number in range(first, first + 40):
            await site.broker.publish("sensors/my-pump/up", b'{"number":%d}' % number)
            published.append(number)

    publishing = asyncio.create_task(publish(0))
    await site.until(lambda: _true(len(published) > 10))
    await site.gateway.kill()
    await site.until(lambda: _true(len(published) > 20))
    await site.start_gateway()
    await publishing

    async def all_stored() -> bool:
        return set(published) <= set(await site.stored(PUMP, "number"))

    await site.until(all_stored)


async def _true(condition: bool) -> bool:
    return condition


async def test_coap(site: ProtocolsSite) -> None:
    before = await site.listener("coap")
    password = await site.add_device("pumps", "coap-pump")
    page = Page("guides/coap.md", site.folder, {**site.here, "my-pump": "coap-pump", "PASSWORD": password})
    assert await page.type_in("-m post", "temperature", "key=PASSWORD") == ""
    await page.until('"value":71.5', "my-pump/current")
    assert await site.stored("pumps:serial:coap-pump", "temperature") == [71.5]
    assert '</sensors/%7Bserial%7D/up>;rt="tidegate.uplink"' in await page.type_in(".well-known/core")
    await page.type_in("key=wrong")
    assert (await site.listener("coap"))["auth_failures"] == before["auth_failures"] + 1
    device = "pumps:serial:coap-pump"
    observing = await asyncio.create_subprocess_shell(
        f"exec {page.find('-s 30', '/down')}", stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
    )
    try:
        command = await site.command_device(device, "reboot", {"in_s": 3})
        assert observing.stdout is not None
        async with asyncio.timeout(COMMAND_S):
            told = json.loads(await observing.stdout.readuntil(b"}}"))
    finally:
        observing.kill()
        await observing.wait()
    assert told == {"command": "reboot", "id": command, "payload": {"in_s": 3}}
    assert await page.shell(page.find("/response/ID").replace("/ID?", f"/{command}?")) == ""
    await site.until_command(device, command, "acknowledged")
    presence = (await site.get(f"devices/{device}"))["presence"]
    assert (presence["online"], presence["reason"], presence["listener"]) == (True, "asks for commands", "coap")
    coap = await site.listener("coap")
    assert (coap["kind"], coap["recorded"]) == ("coap", before["recorded"] + 2)
