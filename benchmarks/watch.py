"""From publish to readable: asks the public API for a device's newest messages all the time, as a dashboard would."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Final

import httpx

from tests.end_to_end.site import Site

PAUSE_S: Final = 0.005
"""Between two looks: finer than what is measured, and leaves the cores to those who are measured."""
NEWEST_MAX: Final = 60
"""Rows of a look: what a device sends in half a second."""


class Watch:
    """Latencies of one device's messages, by their received time at the gateway."""

    def __init__(self, site: Site, device: str) -> None:
        self._url = f"{site.url}/api/v1/devices/{device}/history?last=5m&order=desc&limit={NEWEST_MAX}"
        self._token = site.client.headers["Authorization"]
        self._seen: dict[str, tuple[int, float]] = {}
        self._stop = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Watch:
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._stop.set()
        if self._reading is not None:
            await self._reading

    def sorted_ms(self, from_ms: float = 0.0, to_ms: float = float("inf")) -> list[float]:
        """Of messages received in [from_ms, to_ms), the quickest first."""
        return sorted(latency for received, latency in self._seen.values() if from_ms <= received < to_ms)

    async def _read(self) -> None:
        async with httpx.AsyncClient(headers={"Authorization": self._token}, trust_env=False, timeout=30.0) as client:
            while not self._stop.is_set():
                answer = await client.get(self._url)
                if answer.is_success:
                    self._note(json.loads(answer.content)["items"])
                await asyncio.sleep(PAUSE_S)

    def _note(self, items: Sequence[dict[str, object]]) -> None:
        now_ms = time.time() * 1000
        for item in items:
            received = int(str(item["received_time"]))
            self._seen.setdefault(str(item["id"]), (received, now_ms - received))


def quantile(ordered: Sequence[float], share: float) -> float:
    """Of a sorted list; not a number where nothing was seen."""
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else float("nan")
