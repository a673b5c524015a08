"""A real mosquitto on a free port, which keeps sessions on disk; and mosquitto_pub."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from tests.contract.nats_server import free_port

ANSWER_S = 10.0
"""For what comes within milliseconds: long enough for a busy machine."""

_PATH = os.environ["PATH"] + ":/usr/sbin"


def program(name: str) -> str:
    found = shutil.which(name, path=_PATH)
    assert found is not None, f"{name} is missing: apt-get install mosquitto mosquitto-clients"
    return found


class Mosquitto:
    """Its users are `gateway` and `device`, with the password `secret`; topics below `closed/` are for nobody."""

    def __init__(self, folder: Path, *settings: str) -> None:
        self.port = free_port()
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None
        (folder / "acl").write_text(
            "user gateway\ntopic readwrite #\ntopic deny closed/#\nuser device\ntopic readwrite #\n"
        )
        lines = (
            f"listener {self.port} 127.0.0.1",
            "user root",
            f"password_file {folder / 'passwords'}",
            f"acl_file {folder / 'acl'}",
            "persistence true",
            f"persistence_location {folder}/",
            "autosave_interval 1",
            "autosave_on_changes true",
            *settings,
        )
        (folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")

    @property
    def is_running(self) -> bool:
        return self._process is not None

    async def start(self) -> None:
        passwords = self._folder / "passwords"
        if not passwords.exists():
            passwords.touch(mode=0o600)
            for user in ("gateway", "device"):
                made = await asyncio.create_subprocess_exec(
                    program("mosquitto_passwd"), "-b", str(passwords), user, "secret"
                )
                assert await made.wait() == 0
        with (self._folder / "mosquitto.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                program("mosquitto"), "-c", str(self._folder / "mosquitto.conf"), stdout=log, stderr=log
            )
        async with asyncio.timeout(ANSWER_S):
            while True:
                with contextlib.suppress(ConnectionRefusedError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    return
                await asyncio.sleep(0.02)

    async def stop(self) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        await self._process.wait()
        self._process = None

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls, folder: Path, *settings: str) -> AsyncIterator[Mosquitto]:
        broker = cls(folder, *settings)
        await broker.start()
        try:
            yield broker
        finally:
            await broker.stop()

    async def publish(self, topic: str, *payloads: bytes, retain: bool = False, arguments: Sequence[str] = ()) -> None:
        """With QoS 1, each payload a line; returns when the broker has them."""
        process = await asyncio.create_subprocess_exec(
            program("mosquitto_pub"), "-h", "127.0.0.1", "-p", str(self.port), "-u", "device", "-P", "secret",
            "-q", "1", "-t", topic, "-l", *(["-r"] if retain else []), *arguments, stdin=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(ANSWER_S):
            await process.communicate(b"".join(payload + b"\n" for payload in payloads))
        assert process.returncode == 0

    async def subscriber(self, topic: str, count: int, *arguments: str) -> asyncio.subprocess.Process:
        """mosquitto_sub for so many messages; it has subscribed."""
        process = await asyncio.create_subprocess_exec(
            program("stdbuf"), "-oL", program("mosquitto_sub"), "-h", "127.0.0.1", "-p", str(self.port),
            "-u", "device", "-P", "secret", "-d", "-q", "1", "-t", topic, "-C", str(count), *arguments,
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        async with asyncio.timeout(ANSWER_S):
            while b"Subscribed" not in await process.stdout.readline():
                pass
        return process
