"""What is measured while a scenario runs: a row every so often, of the devices, the gateway and the cloud."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import httpx
import msgspec

from firmware_sim.cloud_api import ApiError, CloudApi, GatewayAccounting, UnreachableError, gateway_accounting
from firmware_sim.fleet import FleetState

SAMPLES_WANTED: Final = 240
"""Over the timeline: one for every three points of a line on the report."""
EVERY_MIN_S: Final = 0.2
EVERY_MAX_S: Final = 10.0
ANSWER_S: Final = 2.0
"""Who stands still has no figures at that moment; the next row is due."""
SAMPLES_MAX: Final = 10_000


class Sample(msgspec.Struct, frozen=True):
    """Seconds since the start; counts since ever, of the devices since the start. None: no answer."""

    at_s: float
    made: int
    acknowledged: int
    buffered: int
    """In the devices."""
    connected: int
    pending: int | None = None
    """In the gateways' logs."""
    link: str = ""
    """Of the first gateway; empty: it does not answer."""
    stored: int | None = None
    in_pipeline: int | None = None


class Recording:
    """`start_s` and `clock`: seconds that never go back. `fleet`: what the devices did so far."""

    def __init__(
        self,
        gateways: tuple[str, ...],
        project: str,
        api: CloudApi,
        client: httpx.AsyncClient,
        *,
        clock: Callable[[], float],
        fleet: Callable[[], FleetState],
    ) -> None:
        self._gateways = gateways
        self._project = project
        self._api = api
        self._client = client
        self._clock = clock
        self._fleet = fleet
        self._start_s = clock()
        self.samples: list[Sample] = []

    @property
    def last(self) -> Sample | None:
        return self.samples[-1] if self.samples else None

    async def run(self, timeline_s: float) -> None:
        """Until it is cancelled, at least so long; then in the same rhythm."""
        every_s = min(max(timeline_s / SAMPLES_WANTED, EVERY_MIN_S), EVERY_MAX_S)
        due_s = self._clock()
        while len(self.samples) < SAMPLES_MAX:
            self.samples.append(await self._sample())
            due_s = max(due_s + every_s, self._clock())
            await asyncio.sleep(due_s - self._clock())

    async def _sample(self) -> Sample:
        at_s, fleet = self._clock() - self._start_s, self._fleet()
        gateways, cloud = await asyncio.gather(self._ask_gateways(), self._ask_cloud())
        return Sample(
            round(at_s, 3),
            fleet.made,
            fleet.acknowledged,
            fleet.waiting,
            fleet.connected,
            pending=None if gateways is None else sum(gateway.totals.pending for gateway in gateways),
            link=gateways[0].link.state if gateways else "",
            stored=None if cloud is None else _sum(cloud, "stored"),
            in_pipeline=None if cloud is None else _sum(cloud, "records_in_pipeline", "in_pipeline"),
        )

    async def _ask_gateways(self) -> list[GatewayAccounting] | None:
        try:
            async with asyncio.timeout(ANSWER_S):
                return [await gateway_accounting(base, self._client) for base in self._gateways]
        except (UnreachableError, TimeoutError):
            return None

    async def _ask_cloud(self) -> list[dict[str, Any]] | None:
        try:
            async with asyncio.timeout(ANSWER_S):
                answer = await self._api.get("/accounting", {"project_id": self._project})
        except (UnreachableError, ApiError, TimeoutError):
            return None
        sources: list[dict[str, Any]] = answer["sources"]
        return sources


def _sum(sources: list[dict[str, Any]], *names: str) -> int:
    return sum(source[name] for source in sources for name in names)
