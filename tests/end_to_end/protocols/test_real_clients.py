"""Each client that devices and people really use: what it says comes into history, and what the cloud tells it is
answered. (curl, coap-client and pymodbus are in test_polled.py, by what the guides say.)"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from tests.end_to_end.protocols.clients import (
    DEADLINE_S,
    Pump,
    aiocoap_client,
    existing_broker,
    gmqtt_client,
    lines,
    mosquitto,
    mqtt_js_device,
    paho,
)
from tests.end_to_end.protocols.site import ProtocolsSite

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def nc_tcp(pump: Pump) -> None:
    await lines(pump, "nc", "127.0.0.1", str(pump.site.tcp), login=f"ID {pump.name}\n")


async def socat_tcp(pump: Pump) -> None:
    await lines(pump, "socat", "-", f"TCP:127.0.0.1:{pump.site.tcp}", login=f"ID {pump.name}\n")


async def nc_udp(pump: Pump) -> None:
    await lines(pump, "nc", "-u", "127.0.0.1", str(pump.site.udp_nc))


async def socat_udp(pump: Pump) -> None:
    await lines(pump, "socat", "-", f"UDP:127.0.0.1:{pump.site.udp_socat}")


async def socat_pty(pump: Pump) -> None:
    async def is_open() -> bool:
        return bool((await pump.site.listener("pty"))["connections"])

    place = f"PTY,link={pump.site.pty},rawer"
    await lines(pump, "socat", "-", place, ready=lambda: pump.site.until(is_open))


CLIENTS: dict[str, tuple[str, Callable[[Pump], Awaitable[None]]]] = {
    "mosquitto-3.1.1": ("plain", partial(mosquitto, version="311")),
    "mosquitto-5": ("plain", partial(mosquitto, version="5")),
    "existing-broker": ("pumps", existing_broker),
    "paho-3.1.1": ("plain", partial(paho, version=MQTTProtocolVersion.MQTTv311)),
    "paho-5": ("plain", partial(paho, version=MQTTProtocolVersion.MQTTv5)),
    "gmqtt-3.1.1": ("plain", partial(gmqtt_client, version=4)),
    "gmqtt-5": ("plain", partial(gmqtt_client, version=5)),
    "mqtt.js-3.1.1": ("plain", partial(mqtt_js_device, version="4")),
    "mqtt.js-5": ("plain", partial(mqtt_js_device, version="5")),
    "aiocoap": ("pumps", aiocoap_client),
    "nc-tcp": ("plain", nc_tcp),
    "socat-tcp": ("plain", socat_tcp),
    "nc-udp": ("plain", nc_udp),
    "socat-udp": ("plain", socat_udp),
    "socat-pty": ("plain", socat_pty),
}
"""Device to its network, and what it does."""


@pytest.mark.parametrize("name", CLIENTS)
async def test_what_a_client_says_is_in_history_and_it_answers_a_command(site: ProtocolsSite, name: str) -> None:
    network, act = CLIENTS[name]
    device = f"{network}:serial:{name}"
    commands: list[str] = []

    async def heard() -> bool:
        return await site.stored(device, "n") == [1]

    async def send_command() -> str:
        await site.until(heard)
        commands.append(await site.command_device(device, "reboot", {"in_s": 3}))
        return commands[0]

    pump = Pump(site, name, await site.add_device(network, name), send_command)
    async with asyncio.timeout(DEADLINE_S):
        await act(pump)
    await site.until_command(device, commands[0], "acknowledged")
