"""What rows work with: one cloud for all of them, and for each a site of its own behind a link proxy."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import httpx

from firmware_sim.faults.fault import Fault
from firmware_sim.faults.proxy import LinkProxy
from tests.end_to_end.site import Platform, Site
from tests.faults.proof import judge
from tests.faults.row import Finding

DEVICES: Final = 10
"""On each of the two networks."""
RATE: Final = 200
"""Messages a second, all devices together."""
OPEN_DRAIN_S: Final = 480.0
"""Of devices that send for as long as it takes: what befalls the gateway meanwhile may last as long as a row may."""
DRAIN_S: Final = 150.0
"""How long a backlog of these sizes may take once a fault has ended, reconnecting included."""
PART_S: Final = 15.0
"""How long devices go on after a fault of no known length has ended, at most."""
SEED: Final = 20261126


class HasAccounting(Protocol):
    async def gateway_status(self) -> dict[str, Any]: ...


class Bench:
    """`say` tells what is going on; `quick`: smaller sizes and shorter times."""

    def __init__(self, folder: Path, *, quick: bool, say: Callable[[str], None]) -> None:
        self.folder = folder
        self.quick = quick
        self.say = say
        self.chance = random.Random(SEED)
        self._platform: Platform | None = None
        self._rigs = 0

    async def platform(self) -> Platform:
        """The one cloud, running; whatever the row before did to it."""
        if self._platform is None:
            self.say("starting a cloud")
            folder = self.folder / "platform"
            folder.mkdir()
            self._platform = Platform(folder)
            await self._platform.start()
            await self._platform.sign_in()
        elif self._platform.cloud.returncode is not None:
            self.say("starting the cloud again")
            await self._platform.start()
        return self._platform

    async def close(self) -> None:
        if self._platform is not None:
            await self._platform.close()

    def place(self, name: str) -> Path:
        """For something beside the sites."""
        return self.folder / name

    @contextlib.asynccontextmanager
    async def rig(
        self,
        *,
        devices: int = DEVICES,
        data_dir: Path | None = None,
        log: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[Rig]:
        """A project, its devices and an enrolled gateway, all up."""
        platform = await self.platform()
        self._rigs += 1
        name = f"rig-{self._rigs}"
        folder = self.folder / name
        folder.mkdir()
        proxy = LinkProxy("127.0.0.1", platform.http_port)
        link_url = f"ws://127.0.0.1:{await proxy.start()}/link/v1"
        site = Site(folder, platform, project=name, data_dir=data_dir, log=log, link_url=link_url)
        rig = Rig(self, site, proxy, link_url)
        try:
            self.say("setting up")
            await site.set_up()
            for network in ("keyed", "plain"):
                rig.roster += await site.add_devices(network, devices)
            await site.until(rig.knows_devices)
            yield rig
        finally:
            await rig.close()
            await proxy.close()


class Rig:
    """One site, its devices, and the fault."""

    def __init__(self, bench: Bench, site: Site, proxy: LinkProxy, link_url: str) -> None:
        self.bench = bench
        self.site = site
        self.proxy = proxy
        self.link_url = link_url
        """The proxy's."""
        self.chance = bench.chance
        self.roster: list[dict[str, Any]] = []
        self.incomplete = False
        """Devices may give up on messages: their buffers are smaller than the fault is long."""

    @property
    def log_dir(self) -> Path:
        return self.site.data_dir / "log"

    def say(self, text: str) -> None:
        self.bench.say(text)

    def seconds(self, whole: float, quick: float) -> float:
        return quick if self.bench.quick else whole

    async def close(self) -> None:
        """Nothing is left of the gateway, however it hangs."""
        with contextlib.suppress(ProcessLookupError, AssertionError):
            await self.site.gateway.kill()

    async def knows_devices(self) -> bool:
        registry = (await self.site.gateway_status())["registry"]
        return bool(registry["devices"] == len(self.roster) and registry["networks"] == 2)

    @contextlib.asynccontextmanager
    async def sending(self, seconds: float | None = None, *, rate: int = RATE) -> AsyncIterator[None]:
        """Devices measure for so long, from a moment before until after the body, or again and again until it is done;
        the end is their last PUBACK."""
        done = asyncio.Event()
        fleet = asyncio.create_task(self._send(seconds, rate, done))
        began_s = time.monotonic()
        try:
            await self.until_status(lambda status: status["totals"]["logged"] > 0)
            yield
            done.set()
            while not fleet.done():
                self.say(f"devices send, {time.monotonic() - began_s:.0f} s")
                await asyncio.wait((fleet,), timeout=1.0)
            fleet.result()
        finally:
            fleet.cancel()
            await asyncio.wait((fleet,))

    async def _send(self, seconds: float | None, rate: int, done: asyncio.Event) -> None:
        drain_s = OPEN_DRAIN_S if seconds is None else DRAIN_S
        while True:
            code, summary = await self.site.fleet(
                self.roster,
                *("--seconds", f"{seconds or PART_S:g}s", "--rate", str(rate)),
                *("--drain", f"{drain_s:g}s", "--buffer", "5000"),
            )
            assert code == 0 or self.incomplete, f"devices have no answer: {summary}"
            if seconds is not None or done.is_set():
                return

    async def break_link(self, fault: Fault, seconds: float) -> None:
        self.say(f"link: {fault.kind.replace('_', ' ')} for {seconds:g} s")
        self.proxy.set_fault(fault)
        await asyncio.sleep(seconds)
        self.proxy.set_fault(Fault())

    async def status(self) -> dict[str, Any] | None:
        """None while the gateway does not answer."""
        try:
            return await self.site.gateway_status()
        except httpx.HTTPError:
            return None

    async def until_status(self, holds: Callable[[dict[str, Any]], bool], within_s: float = 60.0) -> dict[str, Any]:
        """The first status of the gateway for which it holds."""
        async with asyncio.timeout(within_s):
            while (status := await self.status()) is None or not holds(status):
                await asyncio.sleep(0.05)
        return status

    async def until_more_is_stored(self, within_s: float = DRAIN_S) -> None:
        """The cloud works again."""
        before: int | None = None
        async with asyncio.timeout(within_s):
            while True:
                with contextlib.suppress(httpx.HTTPError, AssertionError):  # it is not there yet
                    stored = (await self.cloud_accounting())["total"]["stored"]
                    before = stored if before is None else before
                    if stored > before:
                        return
                await asyncio.sleep(0.1)

    async def drained(self, *others: HasAccounting, within_s: float = DRAIN_S) -> None:
        """Nothing waits at the gateway, at others, or on its way through the cloud. At the end of the time it goes on
        all the same: the proof says what waits."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while (waiting := await self._waiting(others)) is None or any(waiting):
                    await asyncio.sleep(0.2)

    async def _waiting(self, others: Sequence[HasAccounting]) -> tuple[int, int] | None:
        """Records at the gateways, and records and messages in the cloud; None while somebody does not answer."""
        try:
            statuses = [await site.gateway_status() for site in (self.site, *others)]
        except httpx.HTTPError:
            return None
        pending = sum(status["totals"]["pending"] for status in statuses)
        total = (await self.cloud_accounting())["total"]
        in_pipeline = total["in_pipeline"] + total["records_in_pipeline"]
        self.say(f"draining · pending {pending:,} · in pipeline {in_pipeline:,}")
        return pending, in_pipeline

    async def cloud_accounting(self) -> dict[str, Any]:
        found: dict[str, Any] = await self.site.get("accounting")
        return found

    async def prove(
        self,
        *others: HasAccounting,
        note: str = "",
        margin: str = "1h",
        within_s: float = DRAIN_S,
        **expected: Any,
    ) -> Finding:
        """Drains, and judges, `others` with it. `margin`: how far event times may lie from when devices sent."""
        await self.drained(*others, within_s=within_s)
        self.say("proving")
        wait = "5s" if expected.get("may_lose") or expected.get("may_wait") else "60s"
        _, proof = await self.site.verify("--wait", wait, "--margin", margin)
        gateways = [await site.gateway_status() for site in (self.site, *others)]
        return judge(proof, gateways, await self.cloud_accounting(), note=note, **expected)
