"""Devices that need no connection of their own kept: the guides of docs/guides/, their configuration and their commands
as they stand there, on a site of real processes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.contract.coap_client import coap_client
from tests.contract.modbus_units import TcpUnits, unit
from tests.contract.mosquitto import Mosquitto
from tests.contract.nats_server import free_port
from tests.end_to_end.guides import section
from tests.end_to_end.site import COMMANDS, Site
from tests.end_to_end.test_docs import Page

pytestmark = pytest.mark.asyncio(loop_scope="module")

COMMAND_S = 30.0


class Guided(Site):
    """With a listener of each guide, and the device `pumps:serial:my-pump`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.broker = Mosquitto(folder)
        """Not running yet."""
        self.units = TcpUnits(unit(1))
        """The same."""
        self.here: dict[str, str] = {
            "1502": str(self.units.port),
            "8082": str(free_port()),
            "5683": str(free_port()),
            "coap-client": coap_client(),
            "1885": str(self.broker.port),
            "/etc/tidegate/edge.toml": str(self.edge_toml),
            ".venv/bin": str(COMMANDS),
            "127.0.0.1:8080": self.url.removeprefix("http://"),
            "@auth": f"@{folder / 'auth'}",
        }
        sections = "".join(section(guide, self.here) for guide in ("http", "broker", "modbus", "coap"))
        self.edge_toml.write_text(self.edge_toml.read_text() + sections)

    async def set_up(self) -> None:
        await self.set_up_cloud()
        await self.post("networks", {"id": "pumps", "name": "Pumps"})
        alias = {"network_id": "pumps", "alias_key": "serial", "alias": "my-pump"}
        body = {"system_id": "site", "blueprint_id": "pump", "name": "My pump", "aliases": [alias], "credential": True}
        self.here["PASSWORD"] = (await self.post("devices", body))["credential"]["password"]
        (self.folder / "auth").write_text(f"Authorization: {self.client.headers['Authorization']}\n")
        await self.enrol()
        await self.start_gateway()
        await self.until(self.link_is_up)
        await self.until(self.knows_the_device)

    async def knows_the_device(self) -> bool:
        return bool((await self.gateway_status())["registry"]["devices"] == 1)

    async def stored(self, attribute: str) -> list[Any]:
        """Its values in the device's history."""
        path = f"{self.url}/api/v1/devices/pumps:serial:my-pump/history"
        lines = (await self.client.get(path, headers={"Accept": "application/x-ndjson"})).text.splitlines()
        return [data[attribute] for line in lines if attribute in (data := json.loads(line)["data"])]

    async def current(self) -> dict[str, Any]:
        found = (await self.get("devices/pumps:serial:my-pump/current"))["attributes"]
        return {name: held["value"] for name, held in found.items()}

    async def until_current(self, **values: Any) -> None:
        """However busy the machine is; a guide's own command then shows it at once."""

        async def is_there() -> bool:
            return values.items() <= (await self.current()).items()

        await self.until(is_there)

    async def has_rejected_it(self) -> bool:
        items = (await self.get("rejects"))["items"]
        return any(item["payload_text"] == "no JSON" for item in items)

    async def command_device(self, name: str, payload: Any) -> str:
        """The command's id."""
        made = await self.post("devices/pumps:serial:my-pump/commands", {"name": name, "payload": payload})
        return str(made["id"])

    async def until_command(self, command: str, state: str) -> None:
        async def is_there() -> bool:
            found = await self.get(f"devices/pumps:serial:my-pump/commands/{command}")
            assert found["state"] != "failed", found["reason"]
            return bool(found["state"] == state)

        await self.until(is_there)

    def page(self, name: str) -> Page:
        return Page(f"guides/{name}.md", self.folder, dict(self.here))

    async def listener(self, name: str) -> dict[str, Any]:
        listeners = (await self.gateway_status())["listeners"]
        return next(one for one in listeners if one["name"] == name)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Guided]:
    async with Guided(tmp_path_factory.mktemp("guided")) as site:
        await site.set_up()
        yield site
        await site.broker.stop()
        await site.units.stop()


async def test_modbus(site: Guided) -> None:
    page = site.page("modbus")
    assert "boilers" in await page.type_in("config check")
    assert "cannot be reached" in await page.type_in("tidegate-edge status")
    await site.units.start()
    await site.until_current(flow_temperature=0.7, setpoint=20.0, running=True)
    assert (await site.listener("boilers"))["trouble"] == ""
    command = await site.command_device("setpoint", 35.5)
    await site.until_command(command, "delivered")
    await site.until_current(setpoint=35.5)
    assert '"value":35.5' in await page.type_in("my-pump/current")


async def test_http(site: Guided) -> None:
    page = site.page("http")
    assert "204 No Content" in await page.type_in("-u my-pump:PASSWORD", "temperature")
    await site.until_current(temperature=71.5)
    assert '"value":71.5' in await page.type_in("my-pump/current")
    refused = await page.type_in("my-pump:wrong")
    assert "401 Unauthorized" in refused
    assert '"remedy":"make the device a new credential' in refused
    broken = site.page("http").find("temperature").replace('{"temperature": 71.5}', "no JSON")
    assert "204 No Content" in await page.shell(broken)  # it is recorded, and waits among the rejects
    await site.until(site.has_rejected_it)
    poll = page.find("down?wait=30")
    assert "HTTP/1.1 204" in await page.shell(poll.replace("wait=30", "wait=0"))
    command = await site.command_device("reboot", {"delay_s": 5})
    got = await page.shell(poll)
    assert got.endswith('{"delay_s":5}')
    assert f"Tidegate-Command: reboot\r\nTidegate-Command-Id: {command}\r\n" in got
    page.replaced["/ID"] = f"/{command}"
    assert "204 No Content" in await page.type_in("/received")
    await site.until_command(command, "delivered")
    assert "204 No Content" in await page.type_in("/response/ID")
    await site.until_command(command, "acknowledged")
    http = await site.listener("http")
    assert (http["kind"], http["recorded"], http["auth_failures"]) == ("http", 3, 1)


async def test_broker(site: Guided) -> None:
    page = site.page("broker")
    assert (await site.listener("hall"))["trouble"].startswith(f"broker 127.0.0.1:{site.broker.port} cannot be reached")
    await site.broker.start()
    await page.type_in("mosquitto_pub", "sensors/my-pump/up")  # whose session is not there yet: nobody keeps it

    async def is_connected() -> bool:
        return bool((await site.listener("hall"))["connections"])

    await site.until(is_connected)
    await site.page("broker").type_in("mosquitto_pub", "sensors/my-pump/up")
    await site.until_current(temperature=61.5)
    assert '"value":61.5' in await page.type_in("my-pump/current")
    assert "hall" in await page.type_in("tidegate-edge status")
    await page.type_in("response/ID")


async def test_a_killed_gateway_loses_nothing_of_a_broker(site: Guided) -> None:
    published = []

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
        return set(published) <= set(await site.stored("number"))

    await site.until(all_stored)


async def _true(condition: bool) -> bool:
    return condition


async def test_coap(site: Guided) -> None:
    alias = {"network_id": "pumps", "alias_key": "serial", "alias": "coap-pump"}
    body = {"system_id": "site", "blueprint_id": "pump", "name": "CoAP", "aliases": [alias], "credential": True}
    before = (await site.gateway_status())["registry"]["devices"]
    password = (await site.post("devices", body))["credential"]["password"]

    async def is_known() -> bool:
        return bool((await site.gateway_status())["registry"]["devices"] == before + 1)

    await site.until(is_known)
    page = Page("guides/coap.md", site.folder, {**site.here, "my-pump": "coap-pump", "PASSWORD": password})
    assert await page.type_in("-m post", "temperature", "key=PASSWORD") == ""
    await page.until('"value":71.5', "my-pump/current")
    assert '</sensors/%7Bserial%7D/up>;rt="tidegate.uplink"' in await page.type_in(".well-known/core")
    await page.type_in("key=wrong")
    assert (await site.listener("coap"))["auth_failures"] == 1

    device = "devices/pumps:serial:coap-pump"
    observing = await asyncio.create_subprocess_shell(
        f"exec {page.find('-s 30', '/down')}", stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
    )
    try:
        command = await site.post(f"{device}/commands", {"name": "reboot", "payload": {"in_s": 3}})
        assert observing.stdout is not None
        async with asyncio.timeout(COMMAND_S):
            told = json.loads(await observing.stdout.readuntil(b"}}"))
    finally:
        observing.kill()
        await observing.wait()
    assert told == {"command": "reboot", "id": command["id"], "payload": {"in_s": 3}}
    assert await page.shell(page.find("/response/ID").replace("/ID?", f"/{command['id']}?")) == ""

    async def is_answered() -> bool:
        return bool((await site.get(f"{device}/commands/{command['id']}"))["state"] == "acknowledged")

    await site.until(is_answered)
    presence = (await site.get(device))["presence"]
    assert (presence["online"], presence["reason"], presence["listener"]) == (True, "asks for commands", "coap")
    coap = await site.listener("coap")
    assert (coap["kind"], coap["recorded"]) == ("coap", 2)
