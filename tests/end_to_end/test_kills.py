"""Everything is killed, again and again, while devices of every protocol send: what was acknowledged is stored once."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from firmware_sim.devices.roster import PROTOCOLS, Protocol
from tests.end_to_end.engines import kill_engine
from tests.end_to_end.every_protocol import EveryProtocol
from tests.end_to_end.site import Site

MESSAGES = 24_000
DEVICES: dict[Protocol, int] = {"mqtt": 14, "coap": 8, "http": 8, "tcp": 8, "udp": 6, "serial": 3, "modbus": 3}
"""Beside as many that speak MQTT on the network without a message key."""
KILLS = 10
CLOUD_GONE_S = 20.0
SEED = 20261123


@pytest.mark.timeout(600)
async def test_nothing_acknowledged_is_lost_or_doubled(tmp_path: Path) -> None:
    assert set(DEVICES) == set(PROTOCOLS)
    chance = random.Random(SEED)
    async with EveryProtocol(tmp_path, DEVICES) as site:
        await site.set_up()
        roster = await site.add_all() + await site.add_devices("plain", DEVICES["mqtt"])
        await site.until_known(len(roster))
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(
                site.fleet(roster, "--messages", str(MESSAGES), "--rate", "200", "--drain", "240s", "--buffer", "2000")
            )
            group.create_task(_kill_gateway(site, chance))
            group.create_task(_kill_cloud(site, chance))
        code, fleet = sending.result()
        assert code == 0, fleet
        proof_code, proof = await site.verify("--wait", "240s")
        assert proof_code == 0, proof
        assert proof["holds"]
        polled = [one for one in proof["devices"] if one["name"].startswith("modbus")]
        answered = [one for one in proof["devices"] if one not in polled]
        assert fleet["fleet"]["made"] == MESSAGES
        assert all(0 < one["made"] == one["acknowledged"] == one["stored"] for one in answered)
        assert all(one["acknowledged"] == 0 < one["unpromised_stored"] for one in polled)
        accounting = await site.get("accounting")
        assert accounting["closed"]
        status = await site.gateway_status()
        assert status["closed"]
        assert status["totals"]["pending"] == 0
        assert accounting["total"]["accepted"] == status["totals"]["accepted"]


async def _kill_gateway(site: Site, chance: random.Random) -> None:
    for _ in range(KILLS):
        await asyncio.sleep(chance.uniform(1.0, 8.0))
        await site.gateway.kill()
        await site.start_gateway()


async def _kill_cloud(site: Site, chance: random.Random) -> None:
    """Ten times the platform; each engine once; and once all of it is gone for a while."""
    for number in range(KILLS):
        await asyncio.sleep(chance.uniform(1.0, 6.0))
        if number == 3:
            kill_engine(site.folder, "postgres")
        if number == 5:
            kill_engine(site.folder, "nats-server")
        await asyncio.sleep(chance.uniform(0.0, 0.5))
        await site.cloud.kill()
        if number == 7:
            await asyncio.sleep(CLOUD_GONE_S)
        await site.start_cloud()
