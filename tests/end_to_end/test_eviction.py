"""A gateway whose log is full while its cloud is away: the oldest telemetry goes, alarms stay, every loss is told."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from edge.config import LOG_BYTES_MIN
from sync.log.settings import SEGMENT_BYTES_MIN
from tests.end_to_end.device import Device
from tests.end_to_end.site import Site

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

MESSAGES = 240
"""Twice as many as the smallest log has room for."""
PAYLOAD_BYTES = 130_000
ALARM_EVERY = 20


async def test_the_oldest_telemetry_goes_and_the_books_close(tmp_path: Path) -> None:
    settings = {"max_bytes": LOG_BYTES_MIN, "segment_bytes": SEGMENT_BYTES_MIN}
    async with Site(tmp_path, log=settings) as site:
        rules = '[[mqtt.priorities]]\ntopics = ["alarm/#"]\npriority = "alarm"\n'
        site.edge_toml.write_text(site.edge_toml.read_text().replace("[log]", f"{rules}[log]"))
        await site.set_up()
        (made,) = await site.add_devices("plain", 1)

        async def known() -> bool:
            return bool((await site.gateway_status())["registry"]["devices"])

        await site.until(known)
        await site.cloud.stop()
        device = Device(site.mqtt_ports["plain"], made["name"], made["password"])
        async with device.connected():
            for seq in range(1, MESSAGES + 1):
                if seq % ALARM_EVERY == 0:
                    assert await device.publish(json.dumps({"alarm": seq}).encode(), b"alarm/fire")
                fill = base64.b64encode(os.urandom(PAYLOAD_BYTES)).decode()
                assert await device.send(seq=seq, fill=fill), "a full log takes what is new"
        alarms = MESSAGES // ALARM_EVERY

        status = await told(site)
        totals, log = status["totals"], status["log"]
        assert log["used_bytes"] <= log["max_bytes"] == LOG_BYTES_MIN
        assert log["trouble"] == ""
        assert totals["evicted"] > MESSAGES // 4
        # Beside them stand two events: that the device came, and that it left.
        assert totals["logged"] == MESSAGES + alarms + 2 == totals["pending"] + totals["evicted"]
        assert status["closed"]
        assert log["gaps_untold"] > 0
        assert "evicted, as the log was full" in await site.command(
            "tidegate-edge", "status", "--config", site.edge_toml
        )

        await site.gateway.kill()
        await site.start_gateway()
        status = await told(site)
        assert status["closed"]
        # The gateway notes what it knows of the device, for which a little more may have to go.
        assert 0 <= status["totals"]["logged"] - totals["logged"] < 5, "a kill changes nothing else"
        assert status["totals"]["evicted"] >= totals["evicted"]

        await site.start_cloud()

        async def drained() -> bool:
            return bool((await site.gateway_status())["totals"]["pending"] == 0)

        await site.until(drained)
        totals = (await told(site))["totals"]
        rows = [row["data"] for row in await history(site, made["name"], MESSAGES - totals["evicted"] + alarms)]
        kept = MESSAGES - totals["evicted"]
        assert sorted(row["seq"] for row in rows if "seq" in row) == list(range(MESSAGES - kept + 1, MESSAGES + 1))
        assert sorted(row["alarm"] for row in rows if "alarm" in row) == list(
            range(ALARM_EVERY, MESSAGES + 1, ALARM_EVERY)
        )

        async def all_told() -> bool:
            return bool((await site.gateway_status())["log"]["gaps_untold"] == 0)

        await site.until(all_told)


async def told(site: Site) -> dict[str, Any]:
    """What the command says."""
    found: dict[str, Any] = json.loads(
        await site.command("tidegate-edge", "status", "--json", "--config", site.edge_toml)
    )
    return found


async def history(site: Site, name: str, count: int) -> list[dict[str, Any]]:
    """All rows of the device, once there are that many."""
    rows: list[dict[str, Any]] = []

    async def stored() -> bool:
        lines = await site.client.get(
            f"{site.url}/api/v1/devices/plain:serial:{name}/history",
            params={"project_id": site.project},
            headers={"Accept": "application/x-ndjson"},
        )
        rows[:] = [json.loads(line) for line in lines.raise_for_status().text.splitlines()]
        return len(rows) >= count

    await site.until(stored)
    return rows
