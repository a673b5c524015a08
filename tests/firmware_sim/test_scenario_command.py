"""`scenario` as a person runs it, against a gateway that is not the demo's: sockets on loopback, and a cloud that
stores whatever the broker has taken."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from firmware_sim.faults.control import ControlPort
from firmware_sim.faults.fault import Fault, Kind
from firmware_sim.faults.proxy import LinkProxy
from tests.firmware_sim.broker import Broker
from tests.firmware_sim.test_verify import World

pytestmark = pytest.mark.servers

TEXT = """\
title = "One cut, one kill"
duration = "4s"

[fleet]
devices = 3
rate_each = 5.0

[[event]]
what = "cut"
at = "500ms"
for = "2s"

[[event]]
what = "kill"
part = "gateway"
at = "1s"

[[event]]
what = "restart"
at = "3s"
for = "200ms"
share = 0.3
"""


class Stage:
    """A broker as the gateway, a World as status API and cloud, a link proxy that nothing goes through."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.broker = Broker()
        self.world = World()
        self.proxy = LinkProxy("127.0.0.1", 1)
        self.faults: list[Fault] = []
        self.control_port = 0
        self.hidden = 0
        """Messages of each device that are never stored."""
        self.url = ""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Stage]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await self.proxy.start()
        control = ControlPort(self.proxy, changed=self.faults.append)
        self.control_port = await control.start()
        (self.folder / "one.toml").write_text(TEXT)
        try:
            async with self.broker:
                yield self
        finally:
            await control.close()
            await self.proxy.close()
            server.close()
            await server.wait_closed()

    async def play(self, *words: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            Path(sys.executable).parent / "tidegate-sim", "scenario", self.folder / "one.toml", *words,
            "--api", self.url, "--gateway", self.url, "--port", str(self.broker.port), "--network-password", "net",
            "--password", "x", "--run", self.folder / "run", "--wait", "1s",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        method, path, _ = head.split()
        self._store()
        answer = self.world.answer(httpx.Request(method, self.url + path, headers=headers, content=body))
        writer.write(
            b"HTTP/1.1 %d OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b"
            % (answer.status_code, len(answer.content), answer.content)
        )
        await writer.drain()
        writer.close()

    def _store(self) -> None:
        rows: dict[str, dict[tuple[int, int], dict[str, Any]]] = {}
        for one in self.broker.published:
            device = rows.setdefault(f"demo:serial:{one.user}", {})
            device[one.payload["boot"], one.payload["seq"]] = {"data": one.payload}
        self.world.rows = {name: list(device.values())[self.hidden :] for name, device in rows.items()}


async def ended(process: asyncio.subprocess.Process) -> tuple[int, str, str]:
    async with asyncio.timeout(30):
        out, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), errors.decode()


async def test_it_plays_what_can_be_played_and_says_what_is_left_out(tmp_path: Path) -> None:
    async with Stage(tmp_path).open() as stage:
        report = tmp_path / "report.html"
        words = ("--control-port", str(stage.control_port), "--speed", "2", "--json", "--report", str(report))
        code, out, errors = await ended(await stage.play(*words))
        assert code == 0, errors
        played = json.loads(out)
        assert (played["verdict"], played["timeline_s"]) == ("holds", 2.0)
        cut, kill, restart = played["happened"]
        assert (cut["what"], cut["left_out"]) == ("link cut", "")
        assert cut["until_s"] - cut["at_s"] == pytest.approx(1.0)
        assert kill["left_out"] == "only the demo's processes are known, and started again (make run)"
        assert (restart["what"], len(restart["devices"])) == ("firmware restart of 1 device", 1)
        assert [(fault.kind, fault.seconds) for fault in stage.faults] == [(Kind.CUT, 1.0), (Kind.NONE, None)]
        assert stage.faults[0].by == "the scenario one"
        assert played["proof"]["total"]["acknowledged"] == played["proof"]["total"]["stored"] > 20
        assert "One cut, one kill" in report.read_text()


async def test_without_a_control_port_the_link_is_left_alone_and_it_is_said(tmp_path: Path) -> None:
    async with Stage(tmp_path).open() as stage:
        code, out, errors = await ended(await stage.play("--speed", "4"))
        assert code == 0, errors
        assert "✗ the link's faults are left out: no link proxy is known (--control-port)" in out
        assert "✗ what befalls gateway and cloud is left out" in out
        assert "left out: no link proxy is known" in out
        assert "✓ nothing missing, nothing doubled, accounting closed" in out
        assert not stage.faults


async def test_a_loss_is_exit_code_1(tmp_path: Path) -> None:
    async with Stage(tmp_path).open() as stage:
        stage.hidden = 1
        code, out, _ = await ended(await stage.play("--speed", "4"))
        assert code == 1
        assert "✗ 3 acknowledged messages are not stored, and in no gap" in out


async def test_who_stops_it_leaves_nothing_broken(tmp_path: Path) -> None:
    async with Stage(tmp_path).open() as stage:
        process = await stage.play("--control-port", str(stage.control_port), "--speed", "0.2")
        async with asyncio.timeout(20):
            while not stage.faults:
                await asyncio.sleep(0.05)
        process.send_signal(signal.SIGINT)
        code, _, errors = await ended(process)
        assert code == 130
        assert "tidegate-sim verify --ledger" in errors
        assert stage.proxy.fault.kind is Kind.NONE


async def test_a_link_that_somebody_else_broke_is_not_touched(tmp_path: Path) -> None:
    async with Stage(tmp_path).open() as stage:
        stage.proxy.set_fault(Fault(Kind.STALL, by="tidegate-sim unplug, process 7"))
        words = ("--control-port", str(stage.control_port), "--speed", "4")
        code, out, _ = await ended(await stage.play(*words))
        assert code == 0
        assert "left out: the link is broken already, by tidegate-sim unplug, process 7" in out
        assert stage.proxy.fault.kind is Kind.STALL
