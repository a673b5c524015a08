"""Many whole gateways in one process, each with its data folder, log, bus and listener.

    python -m tests.faults.gateways FILE.json

The file lists EdgeConfig objects. They run until SIGTERM.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec

from edge.app import run_gateway
from edge.config import EdgeConfig
from edge.data_folder import Running, running
from tidegate import logs
from tidegate.loop import run

STARTING_MAX: Final = 8
"""Gateways that start at the same time."""
STARTED_S: Final = 60.0


class LightGateway:
    """One of them, from outside."""

    def __init__(self, config: EdgeConfig, client: httpx.AsyncClient) -> None:
        self.config = config
        self._client = client

    @property
    def mqtt_port(self) -> int:
        return self._running().ports[self.config.mqtt[0].name]

    def _running(self) -> Running:
        found = running(self.config.data_dir)
        if found is None or not found.status_url:
            raise httpx.ConnectError(f"no gateway runs on {self.config.data_dir}")
        return found

    async def gateway_status(self) -> dict[str, Any]:
        found = self._running()
        answer: dict[str, Any] = (await self._client.get(f"{found.status_url}/accounting")).raise_for_status().json()
        return answer


async def run_all(configs: list[EdgeConfig], stop: asyncio.Event) -> None:
    places = asyncio.Semaphore(STARTING_MAX)

    async def started(config: EdgeConfig) -> None:
        async with asyncio.timeout(STARTED_S):
            while (found := running(config.data_dir)) is None or not found.status_url:
                await asyncio.sleep(0.02)

    async with asyncio.TaskGroup() as group:
        for config in configs:
            async with places:
                group.create_task(run_gateway(config, stop))
                await started(config)


def main() -> None:
    logs.configure(level="warning")
    configs = msgspec.json.decode(
        Path(sys.argv[1]).read_bytes(), type=list[EdgeConfig], dec_hook=lambda kind, v: kind(v)
    )
    run(lambda stop: run_all(configs, stop))


if __name__ == "__main__":
    main()
