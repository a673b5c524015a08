"""Commands from the API to a device and back, while device, gateway and cloud come, go and are killed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.commander import Commander
from tests.end_to_end.site import Site
from tests.end_to_end.wrong_clock import IN_1970_S, WrongClock


class Desk:
    """Who sends commands to one device, and looks what becomes of them."""

    def __init__(self, site: Site, roster: dict[str, Any]) -> None:
        self.site = site
        self.device = Commander(roster)
        self.path = f"devices/plain:serial:{roster['name']}"

    async def send(self, name: str, payload: Any = None, **fields: Any) -> str:
        body = {"name": name, "payload": payload, **fields}
        command_id: str = (await self.site.post(f"{self.path}/commands", body))["id"]
        return command_id

    async def look(self, command_id: str) -> dict[str, Any]:
        found: dict[str, Any] = await self.site.get(f"{self.path}/commands/{command_id}")
        return found

    async def comes_to(self, command_id: str, state: str) -> dict[str, Any]:
        shown: dict[str, Any] = {}

        async def there() -> bool:
            nonlocal shown
            shown = await self.look(command_id)
            return bool(shown["state"] == state)

        await self.site.until(there)
        return shown

    async def push_listeners(self) -> None:
        """Those of the gateway's file, which stay as they are, and one more; then some that it cannot have."""
        path, client = f"{self.site.url}/api/v1/gateways/quay-1/configuration", self.site.client
        text = self.site.edge_toml.read_text()
        more = '[[mqtt]]\nname = "one-more"\nnetwork = "plain"\nhost = "127.0.0.1"\nport = 0\n'
        text = text[text.index("[[mqtt]]") :] + more
        for toml, state in ((text, "applied"), (f"{text}mistake = 1\n", "refused")):
            (await client.put(path, json={"toml": toml})).raise_for_status()
            seen: dict[str, Any] = {}

            async def said() -> bool:
                nonlocal seen
                seen = (await client.get(path)).raise_for_status().json()
                return bool(seen["state"] != "pending")

            await self.site.until(said)
            assert seen["state"] == state, seen
        assert "mqtt[2].mistake: no such setting" in seen["message"]

    async def listeners(self) -> list[str]:
        return [listener["name"] for listener in (await self.site.gateway_status())["listeners"]]

    async def presence(self) -> tuple[bool | None, str]:
        presence = (await self.site.get(self.path))["presence"]
        return presence["online"], presence["reason"]

    async def until_online_is(self, online: bool | None) -> str:
        async def so() -> bool:
            return (await self.presence())[0] is online

        await self.site.until(so)
        return (await self.presence())[1]


async def desk_of(site: Site) -> Desk:
    await site.set_up()
    (roster,) = await site.add_devices("plain", 1)
    await site.until(lambda: site.gateway_knows(roster))
    return Desk(site, roster)


async def test_each_command_is_run_once_whatever_is_away_or_killed_meanwhile(tmp_path: Path) -> None:
    async with Site(tmp_path) as site:
        desk = await desk_of(site)
        device = desk.device
        await device.connect()
        try:
            first = await desk.send("open", {"percent": 40})
            shown = await desk.comes_to(first, "acknowledged")
            assert (shown["gateway_id"], shown["answer"]["payload"]) == ("quay-1", {"ok": True, "did": "open"})
            assert device.ran[first] == ("open", b'{"percent":40}')
            refused = await desk.send("jam")
            assert (await desk.comes_to(refused, "failed"))["reason"] == "the valve is stuck"
            assert await desk.presence() == (True, "connected")
            await desk.push_listeners()

            await device.leave()
            assert await desk.until_online_is(False) == "disconnected"
            waiting = await desk.send("close")
            await desk.comes_to(waiting, "sent")
            late = await desk.send("late", timeout_s=0.5)
            assert "is not connected" in (await desk.comes_to(late, "expired"))["reason"]
            listed = json.loads(await site.command("tidegate-edge", "commands", "--config", site.edge_toml, "--json"))
            assert {one["id"]: one["state"] for one in listed}[waiting] == "sent"

            await site.gateway.kill()
            unheard = await desk.send("blink")
            cancelled = await desk.send("never")
            await site.post(f"{desk.path}/commands/{cancelled}/cancel", {})
            await site.cloud.kill()
            await site.start_cloud()
            assert (await desk.look(unheard))["state"] == "pending"
            await site.start_gateway()
            await device.connect()
            for command_id in (waiting, unheard):
                await desk.comes_to(command_id, "acknowledged")
            killed = [await desk.send(f"step-{number}") for number in range(4)]
            await site.gateway.kill()
            await site.start_gateway()
            for command_id in killed:
                await desk.comes_to(command_id, "acknowledged")
            assert await desk.until_online_is(True) == "connected"
            assert "one-more" in await desk.listeners()

            await site.gateway.kill()
            assert (await desk.until_online_is(None)).startswith("gateway quay-1 is not connected")
        finally:
            await device.leave()
        assert set(device.ran) == {first, refused, waiting, unheard, *killed}
        assert (await desk.look(cancelled))["state"] == "failed"
        events = (await site.get(f"events?device=plain:serial:{device.name}"))["items"]
        assert {(event["online"], event["reason"]) for event in events} >= {
            (True, "connected"), (False, "disconnected"), (False, "the gateway was started again"),
        }  # fmt: skip


async def test_deadlines_hold_by_the_clouds_clock_where_the_gateways_is_wrong(tmp_path: Path) -> None:
    if shutil.which("faketime") is None:
        pytest.skip("faketime is missing: apt-get install faketime")
    async with Site(tmp_path) as site:
        clock = WrongClock(tmp_path)
        clock.set_off(IN_1970_S)
        site.gateway.environment = clock.environment
        desk = await desk_of(site)
        await desk.device.connect()
        try:
            shown = await desk.comes_to(await desk.send("open", timeout_s=60), "acknowledged")
            assert abs(shown["state_time"] - shown["created_time"]) < 60_000
        finally:
            await desk.device.leave()
        late = await desk.comes_to(await desk.send("late", timeout_s=1), "expired")
        assert 0 <= late["state_time"] - late["deadline"] < 30_000
        assert len(desk.device.ran) == 1
