"""A gateway with a listener of each kind on free ports, as a process of its own, without a cloud."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import sqlite3
import tty
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import psutil

from edge.data_folder import running
from edge.status.accounting import Accounting
from tests.edge.listeners.test_coap_oscore import context
from tests.edge.site import LOG_MIN, NOBODY, GatewayProcess, Site, command

HERE: Final = "127.0.0.1"
"""Where the gateway listens, and the well-behaved device speaks from."""
ELSEWHERE: Final = "127.0.0.2"
"""Where the flood comes from: what is counted by address is not counted against the neighbour."""
LOG_BYTES: Final = 400_000_000
"""Nothing is evicted before it is looked at."""

FRAMING: Final = '{kind = "marked", start = "02", stop = "03", checksum = "CRC-16/MODBUS", gap_ms = 50}'


class Port:
    """A serial port: a pseudo-terminal, whose other end is here."""

    def __init__(self, path: Path) -> None:
        self.end, self._port = pty.openpty()
        tty.setraw(self._port)
        os.set_blocking(self.end, False)
        path.symlink_to(os.ttyname(self._port))

    def close(self) -> None:
        os.close(self._port)
        os.close(self.end)


class Place:
    """Where the listeners are, for who floods them and for who speaks to them."""

    def __init__(self, ports: dict[str, int], serial: dict[str, int]) -> None:
        self.ports = ports
        """By the listener's name."""
        self.serial = serial
        """Descriptors of the other ends, by the listener's name."""


class FuzzSite(Site):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        context(folder / "contexts" / "serial:pump", "01", "02")
        self._lines = {name: Port(folder / name) for name in ("serial", "serial-neighbour")}
        self._folder = folder

    def close(self) -> None:
        for line in self._lines.values():
            line.close()

    def write_config(self) -> Path:
        sections: list[tuple[str, str, dict[str, Any]]] = [
            ("mqtt", "mqtt", {}),
            ("mqtt", "websocket", {"transport": "websocket"}),
            ("http", "http", {"open": True, "templates": ["{serial}", "sensors/{serial}/up"]}),
            ("coap", "coap", {"open": True, "rate_max": 0, "oscore": str(self._folder / "contexts"),
                              "templates": ["sensors/{serial}/up", "{serial}"]}),
            ("tcp", "tcp", {"open": True, "login": "ID {serial}", "ack": "OK {count}\n", "nack": "NO {code}\n"}),
            ("udp", "udp", {"open": True, "rate_max": 0, "ack": "OK {count}\n", "nack": "NO {code}\n"}),
        ]  # fmt: skip
        text = (
            f"data_dir = {json.dumps(str(self.data_dir))}\n[status]\nport = 0\n[link]\nurl = {json.dumps(NOBODY)}\n"
            f"[log]\nmax_bytes = {LOG_BYTES}\nsegment_bytes = {LOG_MIN.segment_bytes}\n"
        )
        for kind, name, settings in sections:
            values = {"name": name, "network": "quay", "host": HERE, "port": 0, **settings}
            text += f"[[{kind}]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
            text += 'framing = {kind = "line"}\n' if kind in ("tcp", "udp") else ""
        for name in self._lines:
            values = {"name": name, "network": "quay", "port": str(self._folder / name), "baud": 115_200, "open": True,
                      "device": f"serial:{name}", "ack": "hex:06", "nack": "hex:15"}  # fmt: skip
            text += "[[serial]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
            text += f"framing = {FRAMING}\n"
        self.config_file.write_text(text)
        return self.config_file

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Gateway]:
        async with self.process() as process:
            found = running(self.data_dir)
            assert found is not None
            place = Place(dict(found.ports), {name: line.end for name, line in self._lines.items()})
            yield Gateway(process, place)

    def logged(self, beginning: bytes) -> list[bytes]:
        """Payloads that begin so, in the order of the log."""
        target = self._folder / "log.sqlite"
        target.unlink(missing_ok=True)
        done = command("log", "export", target, "--config", self.config_file)
        assert done.returncode == 0, done.stderr
        with contextlib.closing(sqlite3.connect(target)) as database:
            rows = database.execute("SELECT payload FROM records ORDER BY epoch, seq").fetchall()
        return [payload for (payload,) in rows if payload.startswith(beginning)]


class Gateway:
    def __init__(self, process: GatewayProcess, place: Place) -> None:
        self.place = place
        self._process = process

    @property
    def is_alive(self) -> bool:
        return self._process.is_alive

    @property
    def rss_bytes(self) -> int:
        return int(psutil.Process(self._process.pid).memory_info().rss)

    @property
    def complaints(self) -> list[str]:
        """What it logged as its own mistakes: exceptions that nobody expected."""
        found = []
        for line in self._process.said.splitlines():
            said = json.loads(line) if line.startswith("{") else {"exception": line}
            if said.get("level") in ("error", "critical") or "exception" in said:
                found.append(f"{said.get('event')}: {said.get('exception', line)}")
        return found

    async def accounting(self) -> Accounting:
        return await self._process.site.accounting()
