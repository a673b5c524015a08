"""A site behind a link proxy that is asked where its messages are: by both commands and both APIs."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from firmware_sim.faults.fault import Fault, Kind
from firmware_sim.faults.proxy import LinkProxy
from tests.contract.nats_server import free_port
from tests.end_to_end.device import Device
from tests.end_to_end.site import Platform, Site

ASKED = 10
"""Of the messages in a state, at random."""
TOLD_S = 15.0
"""A gateway says within 2 s where its records are; then it is stored."""


class Whereabouts(Site):
    """Plain devices by hand; each message is a number, and known by the record that the gateway made of it."""

    def __init__(self, folder: Path, *, log: Mapping[str, Any] | None = None, seed: int = 1) -> None:
        platform = Platform(folder)
        self._proxy_port = free_port()
        super().__init__(folder, platform, log=log, link_url=f"ws://127.0.0.1:{self._proxy_port}/link/v1")
        self.proxy = LinkProxy("127.0.0.1", platform.http_port)
        self.chance = random.Random(seed)
        self._numbers = 0
        self._exports = 0

    async def __aenter__(self) -> Whereabouts:
        await self.proxy.start(port=self._proxy_port)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.proxy.set_fault(Fault())
        await super().__aexit__(*exc)
        await self.platform.close()
        await self.proxy.close()

    async def set_up(self) -> None:
        await self.platform.start()
        await self.platform.sign_in()
        await super().set_up()

    async def device(self, network: str, name: str, *, blueprint: str = "pump") -> Device:
        """A new one that the gateway knows."""
        alias = {"network_id": network, "alias_key": "serial", "alias": name}
        body = {"system_id": "site", "blueprint_id": blueprint, "name": name, "aliases": [alias], "credential": True}
        before = (await self.gateway_status())["registry"]["devices"]
        made = await self.post("devices", body)

        async def known() -> bool:
            return bool((await self.gateway_status())["registry"]["devices"] > before)

        await self.until(known)
        return Device(self.mqtt_ports[network], name, made["credential"]["password"])

    async def send(self, device: Device, count: int, *, fill: str = "") -> list[int]:
        """So many messages, each of which was acknowledged; their numbers."""
        numbers = list(range(self._numbers, self._numbers + count))
        self._numbers += count
        async with device.connected():
            for number in numbers:
                assert await device.send(n=number, **({"fill": fill} if fill else {}))
        return numbers

    async def records(self, numbers: Sequence[int]) -> dict[int, str]:
        """Ten of them, or all: number to record, by the log's own export."""
        found = {number: record for number, record in (await self.exported()).items() if number in set(numbers)}
        assert len(found) == len(numbers), f"{len(found)} of {len(numbers)} are in the log"
        return dict(self.chance.sample(sorted(found.items()), min(ASKED, len(found))))

    async def exported(self) -> dict[int, str]:
        """All that is in the log's files: number to record."""
        self._exports += 1
        file = self.folder / f"log-{self._exports}.sqlite"
        await self.command("tidegate-edge", "log", "export", file, "--config", self.edge_toml)
        database = sqlite3.connect(file)
        try:
            rows = database.execute("SELECT epoch, seq, payload FROM records").fetchall()
        finally:
            database.close()
        found = {}
        for epoch, seq, payload in rows:
            try:
                found[json.loads(payload)["n"]] = f"{epoch}/{seq}"
            except (ValueError, TypeError, KeyError):
                continue  # no message of ours
        return found

    async def at_cloud(self, message: str) -> list[dict[str, Any]]:
        return list((await self.platform.get("where", project_id=self.project, id=message))["items"])

    async def at_edge(self, message: str) -> str:
        answer = await self.client.get(f"{self.status_url}/where", params={"id": message})
        return str(answer.raise_for_status().json()["place"])

    async def all_at_cloud(self, messages: Mapping[int, str], state: str) -> list[dict[str, Any]]:
        """Each has this one place, once the gateway has told; the command says so too of one of them. Their places."""
        for message in messages.values():

            async def is_told(message: str = message) -> bool:
                return [place["state"] for place in await self.at_cloud(message)] == [state]

            try:
                await self.until(is_told, TOLD_S)
            except TimeoutError:
                raise AssertionError(f"{message} is not said to be {state}: {await self.at_cloud(message)}") from None
        places = [(await self.at_cloud(message))[0] for message in messages.values()]
        one = self.chance.choice(list(messages.values()))
        said = await self.command(
            "tidegate-cloud", "where", one, "--project", self.project, "--config", self.cloud_toml, "--json"
        )
        assert [place["state"] for place in json.loads(said)] == [state]
        return places

    async def all_at_edge(self, messages: Mapping[int, str], place: str) -> None:
        """The same at the gateway."""
        said = {message: await self.at_edge(message) for message in messages.values()}
        assert set(said.values()) == {place}, said
        one = self.chance.choice(list(messages.values()))
        answer = json.loads(await self.command("tidegate-edge", "where", one, "--config", self.edge_toml, "--json"))
        assert answer["place"] == place

    async def by_time(self, device: str, time_ms: int) -> list[dict[str, Any]]:
        """`device`: network:key:alias."""
        found = await self.platform.get("where", project_id=self.project, device=device, time=str(time_ms))
        return list(found["items"])

    async def history(self, name: str, *, network: str = "plain", keyed: bool = False) -> dict[int, dict[str, Any]]:
        """Rows of a device by their number."""
        items = (await self.get(f"devices/{network}:serial:{name}/history?limit=1000"))["items"]
        return {item["data"]["n"]: item for item in items}

    def cut(self) -> None:
        self.proxy.set_fault(Fault(Kind.CUT))

    async def mend(self) -> None:
        self.proxy.set_fault(Fault())
        await self.until(self.link_is_up)
