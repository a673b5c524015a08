"""Runs a scenario: devices, what befalls them, what is measured meanwhile, and the ledger at the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec

from firmware_sim.cloud_api import CloudApi
from firmware_sim.devices.roster import RosterDevice
from firmware_sim.devices.surroundings import DeviceSettings
from firmware_sim.fleet import Fleet, FleetPlan, FleetState
from firmware_sim.ledger import LedgerWriter
from firmware_sim.scenarios.director import Director, Happening
from firmware_sim.scenarios.events import MESSAGES_MAX
from firmware_sim.scenarios.recording import Recording, Sample
from firmware_sim.scenarios.site import Site
from firmware_sim.scenarios.timeline import Scenario, moments
from firmware_sim.verify import Progress, Proof, Verification, VerifyPlan

TELL_S: Final = 0.25
"""How often what goes on is told."""
DRAIN_S: Final = 60.0
"""For the last acknowledgements, after the timeline."""


class RunPlan(msgspec.Struct, frozen=True):
    """How a scenario is run, and against what."""

    name: str
    scenario: Scenario
    devices: tuple[RosterDevice, ...]
    settings: DeviceSettings
    ledger: Path
    """Begun anew: the proof is of this run."""
    verify: VerifyPlan
    control_port: int
    run_folder: Path | None
    """Of the demo, where its processes may be touched."""
    seed: int
    speed: float


class Run(msgspec.Struct, frozen=True):
    """What came of it."""

    name: str
    title: str
    seed: int
    speed: float
    began_ms: int
    """Unix ms."""
    timeline_s: float
    """As it passed here; what follows is the wait for what was still on its way."""
    happened: tuple[Happening, ...]
    samples: tuple[Sample, ...]
    fleet: FleetState
    proof: Proof


class Scene(msgspec.Struct, frozen=True):
    """What is told while it runs."""

    passed_s: float
    timeline_s: float
    now: str
    next: str
    sample: Sample | None
    verifying: Progress | None = None


class Runner:
    """Runs a plan once."""

    def __init__(
        self, plan: RunPlan, api: CloudApi, client: httpx.AsyncClient, *, tell: Callable[[Scene], None]
    ) -> None:
        self._plan = plan
        self._api = api
        self._client = client
        self._tell = tell
        self._timeline_s = plan.scenario.duration / plan.speed

    async def run(self, stop: asyncio.Event) -> Run | None:
        """None if `stop` was set before the proof. Raises what Verification does."""
        plan = self._plan
        began_ms = _wall_ms()
        site = Site(control_port=plan.control_port, run_folder=plan.run_folder, by=f"the scenario {plan.name}")
        with LedgerWriter(plan.ledger, wall_ms=_wall_ms) as ledger:
            ledger.start_over()
            fleet = Fleet(self._fleet_plan(), ledger, wall_ms=_wall_ms)
            laid_out = moments(plan.scenario, devices=len(plan.devices), seed=plan.seed)
            director = Director(laid_out, fleet, site, speed=plan.speed, clock=time.monotonic)
            recording = Recording(
                plan.verify.gateways,
                plan.verify.project,
                self._api,
                self._client,
                clock=time.monotonic,
                fleet=fleet.now,
            )
            running = asyncio.create_task(fleet.run(stop, lambda state: None))
            beside: list[asyncio.Task[None]] = []
            try:
                await _first_of(running, fleet.is_on)
                beside = [
                    asyncio.create_task(director.run()),
                    asyncio.create_task(recording.run(self._timeline_s)),
                ]
                await self._tell_until(running, director, recording)
                state = await running
                ledger.close()
                for task in beside:
                    if task.done():
                        task.result()  # a defect of ours, not to be hidden
                if stop.is_set():
                    return None
                proof = await self._verify(recording)
            finally:
                started: list[asyncio.Task[Any]] = [running, *beside]
                for each in started:
                    each.cancel()
                await asyncio.gather(*started, return_exceptions=True)
                await site.leave()
        return Run(
            plan.name,
            plan.scenario.title,
            plan.seed,
            plan.speed,
            began_ms,
            self._timeline_s,
            tuple(director.happened),
            tuple(recording.samples),
            state,
            proof,
        )

    def _fleet_plan(self) -> FleetPlan:
        plan = self._plan
        return FleetPlan(
            plan.devices,
            msgspec.structs.replace(plan.settings, recent_messages=MESSAGES_MAX),
            plan.scenario.fleet.rate_each * plan.speed,
            seconds=self._timeline_s,
            drain_s=DRAIN_S,
            seed=plan.seed,
        )

    async def _tell_until(self, running: asyncio.Task[FleetState], director: Director, recording: Recording) -> None:
        began_s = time.monotonic()
        while not running.done():
            now, following = director.now_and_next()
            passed_s = time.monotonic() - began_s
            self._tell(Scene(passed_s, self._timeline_s, now, following, recording.last))
            await asyncio.wait((running,), timeout=TELL_S)

    async def _verify(self, recording: Recording) -> Proof:
        def report(progress: Progress) -> None:
            self._tell(Scene(self._timeline_s, self._timeline_s, "", "", recording.last, progress))

        verification = Verification(self._plan.verify, self._api, self._client, clock=time.monotonic, report=report)
        return await verification.run()


async def _first_of(running: asyncio.Task[FleetState], is_on: asyncio.Event) -> None:
    """Until it is on, or has failed on the way there, which is raised."""
    waiting = asyncio.create_task(is_on.wait())
    await asyncio.wait((running, waiting), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if running.done():
        running.result()


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
