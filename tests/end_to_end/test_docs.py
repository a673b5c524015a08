"""The commands of the pages in docs/, typed in as they stand there, but for ports, folders and secrets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.contract.nats_server import free_port
from tests.end_to_end.site import COMMANDS
from tests.end_to_end.test_demo import Demo

DOCS = Path(__file__).parents[2] / "docs"
SEEN_S = 10.0
LOOK_S = 0.3
READY_S = 60.0


class Page:
    """A page's commands in order: each is a line, with those that continue it."""

    def __init__(self, name: str, folder: Path, replaced: dict[str, str]) -> None:
        """`replaced`: what stands there, and what it is here; longer texts first."""
        self.replaced = replaced
        self.environment: dict[str, str] = {}
        """For what runs: settings that the page leaves at their defaults."""
        self._folder = folder
        self._commands = list(_commands((DOCS / name).read_text()))

    def find(self, *words: str) -> str:
        """The next command with these words, as it is typed here."""
        for place, command in enumerate(self._commands):
            if all(word in command for word in words):
                del self._commands[: place + 1]
                for there, here in self.replaced.items():
                    command = command.replace(there, here)
                return command
        raise AssertionError(f"no further command with {words}")

    async def type_in(self, *words: str) -> str:
        """Runs the next command with these words to its end; its output."""
        return await self.shell(self.find(*words))

    async def shell(self, command: str) -> str:
        """Runs a command to its end; its output."""
        process = await asyncio.create_subprocess_shell(
            command, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        output, errors = await process.communicate()
        assert process.returncode == 0, f"{command}\n{output.decode()}\n{errors.decode()}"
        return output.decode()

    async def until(self, expected: str, *words: str) -> str:
        """Types the next command with these words again and again until its output has `expected`."""
        commands = self._commands
        async with asyncio.timeout(SEEN_S):
            while True:
                self._commands = list(commands)
                output = await self.type_in(*words)
                if expected in output:
                    return output

    async def until_done(self, *words: str) -> str:
        """Types the next command with these words again and again until it does its work; its output."""
        command = self.find(*words)
        async with asyncio.timeout(SEEN_S):
            while True:
                with contextlib.suppress(AssertionError):
                    return await self.shell(command)
                await asyncio.sleep(LOOK_S)

    @asynccontextmanager
    async def running(self, *words: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """The next command with these words, until the end of the block and Ctrl-C."""
        process = await asyncio.create_subprocess_exec(
            *shlex.split(self.find(*words)), cwd=self._folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            start_new_session=True, env={**os.environ, **self.environment},
        )  # fmt: skip
        try:
            yield process
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGINT)
            async with asyncio.timeout(READY_S):
                await process.communicate()


def _commands(text: str) -> Iterator[str]:
    for block in re.findall(r"(?:^    .*\n)+", text, re.MULTILINE):
        command = ""
        for line in block.splitlines():
            command += f"\n{line[4:]}" if command else line[4:]
            if command.count("'") % 2 == 0 and not command.endswith("|"):
                yield command
                command = ""


async def seen(process: asyncio.subprocess.Process, word: str, command: str, folder: Path) -> None:
    """Types the command again and again until the process, which looks on once it has started, prints the word."""
    assert process.stdout is not None
    async with asyncio.timeout(SEEN_S):
        while True:
            await _shell(command, folder)
            try:
                async with asyncio.timeout(LOOK_S):
                    line = (await process.stdout.readline()).decode()
            except TimeoutError:
                continue
            assert line, "it ended"
            if word in line:
                return


async def test_connect(tmp_path: Path) -> None:
    folder = tmp_path / ".run"
    async with Demo(folder).running():
        state = json.loads((folder / "demo.json").read_text())
        here = {
            "127.0.0.1:8080": state["api"].removeprefix("http://"),
            "-p 1884": f"-p {state['mqtt_port']}",
            ".venv/bin": str(COMMANDS),
        }
        page = Page("CONNECT.md", tmp_path, here)
        made = json.loads(await page.type_in("api/v1/devices", '"credential": true'))
        assert made["credential"]["user"] == "my-pump"
        here["PASSWORD"] = made["credential"]["password"]
        await page.until_done("mosquitto_pub")  # "within a second the gateway knows them"
        await page.until('"value":71.5', "my-pump/current")

        async with page.running("tail", "--device my-pump") as tail, page.running("tail", "--rejected") as rejects:
            again = Page("CONNECT.md", tmp_path, here)
            publish = again.find("mosquitto_pub")
            await seen(tail, 'my-pump  {"temperature":71.5}', publish, tmp_path)
            await seen(rejects, "not JSON", publish.replace('{"temperature": 71.5}', "no JSON"), tmp_path)

        await page.type_in("tidegate-sim send new-pump")
        waiting = json.loads(await page.until("new-pump", "/inbox"))["items"]
        assert waiting[0]["data"] == {"temperature": 12.5}
        here["-t 'down/+/+'"] = "-t 'down/+/+' -C 1 -W 10"
        assert json.loads(await page.type_in("my-pump/commands", "timeout_s"))["state"] in ("pending", "sent")
        topic = (await page.type_in("mosquitto_sub", "down/+/+")).split()[0]
        here["ID"] = topic.removeprefix("down/reboot/")
        await page.type_in("mosquitto_pub", "up/response/")
        await Page("CONNECT.md", tmp_path, here).until('"acknowledged"', "auth 127", "my-pump/commands")
        here["MESSAGE"], here["TIME"] = waiting[0]["id"], str(waiting[0]["received_time"])
        assert (await page.type_in("tidegate-cloud where MESSAGE")).startswith("inbox ")
        assert "no device has the alias demo:serial:new-pump" in await page.type_in("tidegate-cloud where --device")
        answer = json.loads(await page.type_in("api/v1/messages"))
        assert answer["device_known"] is True
        await Page("CONNECT.md", tmp_path, here).until('"value":72.5', "my-pump/current")


async def _shell(command: str, folder: Path) -> None:
    process = await asyncio.create_subprocess_shell(command, cwd=folder, stdin=subprocess.DEVNULL)
    assert await process.wait() == 0, command


async def test_install(tmp_path: Path) -> None:
    port, mqtt_port, status_port = free_port(), free_port(), free_port()
    here = {
        "/opt/tidegate-cloud/bin": str(COMMANDS),
        "/var/lib/tidegate-cloud": str(tmp_path / "cloud"),
        "127.0.0.1:8080": f"127.0.0.1:{port}",
        "/opt/tidegate/bin": str(COMMANDS),
        "/etc/tidegate/edge.toml": str(tmp_path / "edge.toml"),
        "https://cloud.example": f"http://127.0.0.1:{port}",
    }
    page = Page("INSTALL.md", tmp_path, here)
    assert page.find("pip install").endswith("'.[cloud]'")
    page.environment = {
        "TIDEGATE_CLOUD_HTTP__PORT": str(port),
        "TIDEGATE_CLOUD_DATABASE__PORT": str(free_port()),
        "TIDEGATE_CLOUD_NATS__PORT": str(free_port()),
        "TIDEGATE_EDGE_STATUS__PORT": str(status_port),
    }
    async with page.running("tidegate-cloud run"):
        await _answers(f"http://127.0.0.1:{port}/readyz", tmp_path)
        here["PASSWORD"] = (await page.type_in("user reset admin")).strip().removeprefix("admin / ")
        await page.type_in("api/v1/session")
        assert (tmp_path / "auth").read_text().startswith("Authorization: Bearer ")
        for resource, key in (("projects", "works"), ("networks", "pumps"), ("gateways", "quay-1")):
            made: dict[str, Any] = json.loads(await page.type_in(f"api/v1/{resource}"))
            assert made["id"] == key
        here["TOKEN"] = made["enrolment"]["token"]
        for resource, key in (("systems", "harbour"), ("blueprints", "pump")):
            assert json.loads(await page.type_in(f"api/v1/{resource}"))["id"] == key

        assert page.find("pip install").endswith("'.[edge]'")
        (tmp_path / "edge.toml").write_text(_gateways_toml(tmp_path, mqtt_port))
        assert '"pumps"' in await page.type_in("config check")
        assert "enrolled as gateway quay-1 of project works" in await page.type_in("enroll")
        async with page.running("tidegate-edge run"):
            await _answers(f"http://127.0.0.1:{status_port}/readyz", tmp_path)
            assert "logged 0 = accepted 0 + pending 0" in await page.until("up for", "tidegate-edge status")
            async with page.running("tidegate-edge tail"):
                assert "0 records in log.sqlite" in await page.type_in("log export")


def _gateways_toml(folder: Path, mqtt_port: int) -> str:
    """The page's, with a folder and a port of ours."""
    block = re.search(
        r"(?:^    .*\n|^\n)*^    \[\[mqtt\]\]\n(?:^    .*\n)+", (DOCS / "INSTALL.md").read_text(), re.MULTILINE
    )
    assert block is not None
    text = re.sub(r"^    ", "", block[0], flags=re.MULTILINE)
    return text.replace("/var/lib/tidegate", str(folder / "gateway")).replace("1883", str(mqtt_port))


async def _answers(url: str, folder: Path) -> None:
    await _shell(
        f"curl -sf --retry 300 --retry-delay 0 --retry-all-errors --retry-max-time {READY_S:g} -o reply {url}", folder
    )
