"""The devices of a scenario on the demo: made through the public API once, and kept beside the demo's own."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import httpx
import msgspec

from firmware_sim.cloud_api import ApiError, CloudApi, UnreachableError, gateway_accounting
from firmware_sim.demo.furnish import blueprint, create_device
from firmware_sim.devices.roster import RosterDevice, SharedProtocol, read_roster
from firmware_sim.run_folder import DemoState, write_private
from firmware_sim.signals import PROFILES
from tidegate.console import UserError

KNOWN_S: Final = 10.0
"""Until the gateway knows new devices; it takes a second while its link is up."""
LOOK_S: Final = 0.2


async def enlist(
    demo: DemoState,
    api: CloudApi,
    client: httpx.AsyncClient,
    file: Path,
    count: int,
    profile: str,
    protocols: Sequence[SharedProtocol],
) -> list[RosterDevice]:
    """`count` devices that nothing else simulates and that speak `protocols` in turn; those that `file` does not list
    are made, and added to it. Returns once the gateway knows them. Raises UserError."""
    listed = {device.name: device for device in _listed(file)}
    wanted = _wanted(demo, count, profile, protocols)
    missing = [device for device in wanted if device.name not in listed]
    if missing:
        try:
            known = (await gateway_accounting(demo.status, client)).registry.devices
            await api.create(f"/blueprints?project_id={demo.project}", blueprint(PROFILES[profile]))
            for device in missing:
                listed[device.name] = await create_device(api, demo.project, device)
                file.parent.mkdir(parents=True, exist_ok=True)
                write_private(file, msgspec.json.encode(list(listed.values())))
            await _until_known(demo, client, known + len(missing))
        except (ApiError, UnreachableError) as error:
            raise UserError(f"no devices for the scenario: {error}", "is the demo running? make run") from None
    return [_placed(demo, listed[device.name]) for device in wanted]


def _wanted(demo: DemoState, count: int, profile: str, protocols: Sequence[SharedProtocol]) -> list[RosterDevice]:
    found: list[RosterDevice] = []
    numbers: Counter[SharedProtocol] = Counter()
    for protocol in itertools.islice(itertools.cycle(protocols), count):
        numbers[protocol] += 1
        kind = profile if protocol == "mqtt" else f"{profile}-{protocol}"
        name = f"scenario-{kind}-{numbers[protocol]:02d}"
        found.append(
            RosterDevice(name, network=demo.network, alias_key=demo.alias_key, profile=profile, protocol=protocol)
        )
    return found


def _placed(demo: DemoState, device: RosterDevice) -> RosterDevice:
    """Where the demo listens in this run."""
    bench = demo.benches.get(device.protocol)
    if bench is None:
        raise UserError(f"the demo has no listener for {device.protocol}", "make reset, then make run")
    return msgspec.structs.replace(device, host=bench.device.host, port=bench.device.port)


def _listed(file: Path) -> list[RosterDevice]:
    return read_roster(file) if file.exists() else []


async def _until_known(demo: DemoState, client: httpx.AsyncClient, devices: int) -> None:
    """Or for KNOWN_S: one that only got a new credential is not counted twice, and connects again until it may."""
    end_s = time.monotonic() + KNOWN_S
    while (now := await gateway_accounting(demo.status, client)).registry.devices < devices:
        if time.monotonic() > end_s:
            if now.link.state == "up":
                return
            raise UserError(f"the gateway cannot know the new devices: its link is {now.link.state}", "plug it in")
        await asyncio.sleep(LOOK_S)
