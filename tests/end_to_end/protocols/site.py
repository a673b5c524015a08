"""A site with a listener of each kind, several of some: those of the guides, and others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.contract.coap_client import coap_client
from tests.contract.modbus_units import TcpUnits, unit
from tests.contract.mosquitto import Mosquitto
from tests.contract.nats_server import free_port
from tests.end_to_end.guides import section
from tests.end_to_end.site import COMMANDS, Site
from tests.end_to_end.test_docs import Page

GUIDES = ("tcp", "udp", "serial", "http", "broker", "modbus", "coap")

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
port = "{meter}"
open = true
device = "serial:meter"
ack = "hex:06"
framing = {{kind = "marked", start = "02", stop = "03", checksum = "CRC-16/MODBUS", gap_ms = 50}}

[[serial]]
name = "pty"
network = "plain"
port = "{pty}"
open = true
device = "serial:socat-pty"
ack = "OK {{count}}\\n"

[[udp]]
name = "nc"
network = "plain"
host = "127.0.0.1"
port = {udp_nc}
open = true
device = "serial:nc-udp"
ack = "OK\\n"

[[udp]]
name = "socat"
network = "plain"
host = "127.0.0.1"
port = {udp_socat}
open = true
device = "serial:socat-udp"
ack = "OK\\n"
"""


class ProtocolsSite(Site):
    """Its devices are `pumps:serial:my-pump`, which all guides speak of, and those that a test makes."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.tcp, self.udp, self.udp_nc, self.udp_socat = (free_port() for _ in range(4))
        self.meter, self.pty = folder / "ttyUSB0", folder / "ttyUSB1"
        self.broker = Mosquitto(folder)
        """Not running yet."""
        self.units = TcpUnits(unit(1))
        """The same."""
        self.coap = free_port()
        self.here: dict[str, str] = {
            "5000": str(free_port()),
            "/dev/ttyUSB0": str(folder / "guided"),
            "1502": str(self.units.port),
            "8082": str(free_port()),
            "5683": str(self.coap),
            "coap-client": coap_client(),
            "1885": str(self.broker.port),
            "/etc/tidegate/edge.toml": str(self.edge_toml),
            ".venv/bin": str(COMMANDS),
            "127.0.0.1:8080": self.url.removeprefix("http://"),
            "@auth": f"@{folder / 'auth'}",
        }
        sections = LISTENERS.format_map(vars(self))
        sections += "".join(section(guide, self.here) for guide in GUIDES)
        self.edge_toml.write_text(self.edge_toml.read_text() + sections)
        self._devices = 0

    async def set_up(self) -> None:
        await self.set_up_cloud()
        (self.folder / "auth").write_text(f"Authorization: {self.client.headers['Authorization']}\n")
        await self.post("networks", {"id": "pumps", "name": "Pumps"})
        await self.enrol()
        await self.start_gateway()
        await self.until(self.link_is_up)
        self.here["PASSWORD"] = await self.add_device("pumps", "my-pump")

    async def add_device(self, network: str, alias: str) -> str:
        """Its password; the gateway knows it."""
        names = [{"network_id": network, "alias_key": "serial", "alias": alias}]
        body = {"system_id": "site", "blueprint_id": "pump", "name": alias, "aliases": names, "credential": True}
        password: str = (await self.post("devices", body))["credential"]["password"]
        self._devices += 1

        async def is_known() -> bool:
            return bool((await self.gateway_status())["registry"]["devices"] == self._devices)

        await self.until(is_known)
        return password

    async def start_broker(self) -> None:
        """Once; the gateway has subscribed there."""
        if not self.broker.is_running:
            await self.broker.start()

        async def is_connected() -> bool:
            return bool((await self.listener("hall"))["connections"])

        await self.until(is_connected)

    def page(self, name: str) -> Page:
        return Page(f"guides/{name}.md", self.folder, dict(self.here))

    async def listener(self, name: str) -> dict[str, Any]:
        listeners = (await self.gateway_status())["listeners"]
        return next(one for one in listeners if one["name"] == name)

    async def stored(self, device: str, attribute: str) -> list[Any]:
        """Its values in the device's history."""
        path = f"{self.url}/api/v1/devices/{device}/history"
        lines = (await self.client.get(path, headers={"Accept": "application/x-ndjson"})).text.splitlines()
        return [data[attribute] for line in lines if attribute in (data := json.loads(line)["data"])]

    async def command_device(self, device: str, name: str, payload: Any) -> str:
        """The command's id."""
        return str((await self.post(f"devices/{device}/commands", {"name": name, "payload": payload}))["id"])

    async def until_command(self, device: str, command: str, state: str) -> dict[str, Any]:
        found: dict[str, Any] = {}

        async def is_there() -> bool:
            nonlocal found
            found = await self.get(f"devices/{device}/commands/{command}")
            assert found["state"] != "failed", found["reason"]
            return bool(found["state"] == state)

        await self.until(is_there)
        return found
