"""The demo's project: made through the public API, once; found again later."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final
from urllib.parse import quote

import msgspec

from firmware_sim.cloud_api import CloudApi
from firmware_sim.demo.benches import WAYS
from firmware_sim.devices.roster import Protocol, RosterDevice
from firmware_sim.run_folder import DemoState
from firmware_sim.signals import PROFILES, Profile

SYSTEM: Final = "harbour"
KEY_PATHS: Final = ("boot", "seq")
"""Where the devices' payloads hold their message key."""
PUMPS_PERCENT: Final = 60
OTHERS: Final[dict[Protocol, str]] = {
    "coap": "tank", "http": "pump", "tcp": "pump", "udp": "boat", "serial": "meter", "modbus": "meter",
}  # fmt: skip
"""Profiles of those that do not speak MQTT."""


async def furnish(api: CloudApi, state: DemoState, devices: int, keep: Callable[[], None]) -> None:
    """Makes what is missing and writes credentials into `state`; `keep` is called after each, so that a start that is
    cut off forgets none."""
    project, network = state.project, state.network
    await api.create("/projects", {"id": project, "name": "Demonstration"})
    await api.create(f"/systems?project_id={project}", {"id": SYSTEM, "name": "Harbour"})
    codec = {"codec": "json", "key_paths": list(KEY_PATHS), "time_path": "time"}
    await api.create(
        f"/networks?project_id={project}",
        {"id": network, "name": "Demo devices", "alias_key": state.alias_key, "codec": codec},
    )
    wanted = roster(devices, network, state.alias_key)
    for name in sorted({device.profile for device in wanted}):
        await api.create(f"/blueprints?project_id={project}", blueprint(PROFILES[name]))
    if not state.network_password:
        made = await api.post(f"/networks/{network}/credentials?project_id={project}", {"keep_previous": False})
        state.network_password = made["password"]
        keep()
    for bench in state.benches.values():
        if not bench.device.password:
            bench.device = await create_device(api, project, bench.device)
            keep()
    known = {device.name for device in state.devices}
    for device in wanted:
        if device.name not in known:
            state.devices.append(await create_device(api, project, device))
            keep()


def roster(devices: int, network: str, alias_key: str) -> list[RosterDevice]:
    """The simulated ones: so many by MQTT, 12 pumps and 8 tanks of 20, and behind them one by each other protocol."""
    pumps = devices * PUMPS_PERCENT // 100
    by_mqtt = [("pump", number) for number in range(1, pumps + 1)]
    by_mqtt += [("tank", number) for number in range(1, devices - pumps + 1)]
    common = partial(RosterDevice, network=network, alias_key=alias_key)
    return [common(f"{profile}-{number:02d}", profile=profile) for profile, number in by_mqtt] + [
        common(f"{profile}-{protocol}", profile=profile, protocol=protocol) for protocol, profile in OTHERS.items()
    ]


async def gateway_token(api: CloudApi, state: DemoState) -> str:
    """A token by which the demo's gateway enrols; the gateway is made if there is none."""
    body = {"id": state.gateway, "name": "Quay 1, north end"}
    made = await api.create(f"/gateways?project_id={state.project}", body)
    if made is not None:
        return str(made["enrolment"]["token"])
    path = f"/gateways/{state.gateway}/enrolment-tokens?project_id={state.project}"
    return str((await api.post(path, {}))["token"])


def blueprint(profile: Profile) -> dict[str, Any]:
    attributes = {
        attribute.name: {"type": attribute.kind, **({"unit": attribute.unit} if attribute.unit else {})}
        for attribute in profile.attributes
    }
    return {
        "id": profile.name,
        "name": profile.name.capitalize(),
        "attributes": attributes,
    }


async def create_device(api: CloudApi, project: str, device: RosterDevice) -> RosterDevice:
    """The device with its credential, if its protocol has one: a new one, also where a start was cut off after it was
    made."""
    has_credential = WAYS[device.protocol].has_credential
    body = {
        "system_id": SYSTEM,
        "blueprint_id": device.profile,
        "name": device.name,
        "aliases": [{"network_id": device.network, "alias_key": device.alias_key, "alias": device.name}],
        "credential": has_credential,
    }
    answer = await api.create(f"/devices?project_id={project}", body)
    if not has_credential:
        return device
    if answer is not None:
        credential = answer["credential"]
    else:
        ref = quote(f"{device.network}:{device.alias_key}:{device.name}", safe=":")
        credential = await api.post(f"/devices/{ref}/credentials?project_id={project}", {"keep_previous": False})
    return msgspec.structs.replace(device, user=credential["user"], password=credential["password"])
