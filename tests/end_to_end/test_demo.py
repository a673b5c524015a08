"""What `make run` runs, and every line that it prints to be typed: as a newcomer does it, in order."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.end_to_end.site import COMMANDS

ROOT = Path(__file__).parents[2]
READY_S = 120.0
SEEN_S = 1.0
"""A value is in current and history within this time of its acknowledgement."""
ARRIVES_S = 60.0
STOP_S = 60.0
TITLES = {"mqtt": "MQTT", "coap": "CoAP", "http": "HTTP", "tcp": "TCP", "udp": "UDP", "modbus": "Modbus"}


class Demo:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.printed = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Demo]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "firmware_sim.demo", "--run", self.folder, cwd=ROOT,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        assert process.stdout is not None
        try:
            async with asyncio.timeout(READY_S):
                while "see them" not in self.printed:
                    line = await process.stdout.readline()
                    assert line, f"the demo ended:\n{self.printed}"
                    self.printed += line.decode()
            yield self
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGINT)
            rest, _ = await asyncio.wait_for(process.communicate(), STOP_S)
            self.printed += rest.decode()
            assert process.returncode == 0, self.printed

    def printed_command(self, label: str) -> str:
        found = re.search(rf"^ +{label} +(\S.*)$", self.printed, re.MULTILINE)
        assert found, f"no line {label!r} in:\n{self.printed}"
        return found[1]

    async def type_in(self, command: str) -> str:
        """Runs a line as it is, in the clone; its output."""
        process = await asyncio.create_subprocess_shell(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        output, _ = await process.communicate()
        assert process.returncode == 0, f"{command}\n{output.decode()}"
        return output.decode()

    async def api(self, path: str, body: dict[str, Any] | None = None) -> Any:
        line = f"curl -s -H @{shlex.quote(str(self.folder / 'auth'))} {self.state()['api']}/api/v1/{path}"
        if body is not None:
            line += f" -H 'Content-Type: application/json' -d {shlex.quote(json.dumps(body))}"
        return json.loads(await self.type_in(line))

    def state(self) -> Any:
        return json.loads((self.folder / "demo.json").read_text())

    async def until(self, name: str, attribute: str, is_wanted: Callable[[Any], bool], command: str = "") -> None:
        """A device's current value, however busy the machine is. `command`: typed again and again meanwhile."""
        async with asyncio.timeout(ARRIVES_S):
            while True:
                if command:
                    await self.type_in(command)
                current = (await self.api(f"devices/demo:serial:{name}/current"))["attributes"]
                if is_wanted(current.get(attribute, {}).get("value")):
                    return

    async def seen(self, temperature: float) -> None:
        """In current and in history, by the printed lines, within SEEN_S."""
        async with asyncio.timeout(SEEN_S):
            while True:
                current = json.loads(await self.type_in(self.printed_command("current")))
                history = json.loads(await self.type_in(self.printed_command("history")))
                if (
                    current["attributes"].get("temperature", {}).get("value") == temperature
                    and history["items"]
                    and history["items"][0]["data"] == {"temperature": temperature}
                ):
                    return


async def one_value_by_each_protocol(demo: Demo) -> None:
    """And another by those whose other end is to outlive the gateway."""
    benches = demo.state()["benches"]
    assert set(benches) == {"mqtt", "coap", "http", "tcp", "udp", "serial", "modbus"}
    for protocol, bench in benches.items():
        command = demo.printed_command(TITLES.get(protocol, protocol))
        assert bench["command"] == command
        await demo.type_in(command)
        await demo.until(bench["device"]["name"], "temperature", lambda value: value == 71.5)
    shown = [json.loads(line) for line in (await demo.type_in(demo.printed_command("see them"))).splitlines()]
    assert [one["attributes"]["temperature"]["value"] for one in shown] == [71.5] * len(benches)

    simulated = {device["protocol"]: device["name"] for device in demo.state()["devices"]}
    assert set(simulated) == set(benches)
    for name in simulated.values():
        await demo.until(name, "seq", lambda value: value is not None)

    os.kill(demo.state()["pids"]["gateway"], signal.SIGKILL)
    for protocol in ("serial", "modbus"):
        command = benches[protocol]["command"].replace("71.5", "68.5").replace("715", "685")
        await demo.until(benches[protocol]["device"]["name"], "temperature", lambda value: value == 68.5, command)


async def test_a_newcomers_first_quarter_of_an_hour(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    async with Demo(folder).running() as demo:
        await demo.type_in(demo.printed_command("send"))
        await demo.seen(71.5)
        await demo.type_in(demo.printed_command("send").replace("71.5", "68.25"))
        await demo.seen(68.25)
        await demo.type_in(demo.printed_command("MQTT").replace("71.5", "75.5"))
        await demo.seen(75.5)
        await one_value_by_each_protocol(demo)

        await demo.type_in(
            f"{COMMANDS}/tidegate-sim send nobody-yet temperature=12.5 --network-credential --run {folder}"
        )
        async with asyncio.timeout(SEEN_S):
            while not (waiting := (await demo.api("inbox"))["items"]):
                pass
        assert (waiting[0]["alias"], waiting[0]["data"]) == ("nobody-yet", {"temperature": 12.5})
        bench = await demo.api("devices/demo:serial:bench-01")
        await demo.api(
            "devices",
            {
                "name": "Now there",
                "system_id": bench["system_id"],
                "blueprint_id": bench["blueprint_id"],
                "aliases": [{"network_id": "demo", "alias_key": "serial", "alias": "nobody-yet"}],
            },
        )
        async with asyncio.timeout(SEEN_S):
            while not (stored := (await demo.api("devices/demo:serial:nobody-yet/history?last=10m"))["items"]):
                pass
        assert stored[0]["data"] == {"temperature": 12.5}
        assert not (await demo.api("inbox"))["items"]

        await demo.type_in(demo.printed_command("pull the plug").replace("60s", "10s"))
        proof = await demo.type_in(demo.printed_command("prove it"))
        assert "nothing missing, nothing doubled, accounting closed" in proof
    assert not (folder / "serial").exists()

    # A later start finds everything as it was left.
    async with Demo(folder).running() as again:
        await again.seen(71.5)
        proof = await again.type_in(again.printed_command("prove it"))
        assert "nothing missing, nothing doubled, accounting closed" in proof
