"""Real gateways whose clocks are wrong: what they record is filed under the time at which it happened."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from protocols.times import CLOCK_UNSET_BEFORE_MS
from tests.end_to_end.device import Device
from tests.end_to_end.site import COMMANDS, Process, Site
from tests.end_to_end.wrong_clock import DAY_S, IN_1970_S, WrongClock

MESSAGES = 60
ERROR_MAX_MS = 2_000
"""Half a round trip on loopback, on a machine that is busy with other tests."""
STAMP_MS = 51
"""What a record's stamp may be off by, with the clock set or not (CLOCK_STEP_MS, and a millisecond of rounding)."""


class Sent(msgspec.Struct):
    """When a message was handed over and when it was acknowledged, true Unix milliseconds."""

    from_ms: int
    to_ms: int


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def send(device: Device, sent: dict[int, Sent], count: int) -> None:
    for _ in range(count):
        number, from_ms = len(sent), now_ms()
        assert await device.send(n=number)
        sent[number] = Sent(from_ms, now_ms())


async def history(site: Site, device_id: int) -> list[dict[str, Any]]:
    answer = await site.client.get(
        f"{site.url}/api/v1/devices/{device_id}/history?order=asc", headers={"Accept": "application/x-ndjson"}
    )
    return [msgspec.json.decode(line) for line in answer.raise_for_status().text.splitlines()]


def assert_filed_right(rows: list[dict[str, Any]], sent: dict[int, Sent]) -> None:
    """Each message once, under the time at which it was sent."""
    assert sorted(row["data"]["n"] for row in rows) == sorted(sent)
    for row in rows:
        true, error_ms = sent[row["data"]["n"]], (row["time_error_ms"] or 0) + STAMP_MS
        assert true.from_ms - error_ms <= row["event_time"] <= true.to_ms + error_ms, row


async def stored(site: Site, device_id: int, count: int) -> list[dict[str, Any]]:
    async def complete() -> bool:
        return len(await history(site, device_id)) >= count

    await site.until(complete)
    return await history(site, device_id)


@pytest.mark.timeout(240)
async def test_a_gateway_that_boots_in_1970_files_its_messages_under_true_time(tmp_path: Path) -> None:
    """It records before it has ever reached the cloud; then the cloud's greeting dates what it recorded."""
    async with Site(tmp_path) as site:
        await site.set_up()
        (device,) = await site.add_devices("plain", 1)
        device_id = (await site.get("devices"))["items"][0]["id"]
        await site.until(lambda: _lets_in(device))
        await site.gateway.stop()
        clock = WrongClock(tmp_path)
        clock.set_off(IN_1970_S)
        await _move_in_a_second_gateway(site, clock)
        await site.cloud.stop()
        await site.start_gateway()
        status = await site.gateway_status()
        assert (status["clock"]["state"], status["clock"]["anchor"]) == ("unset", "")
        assert 0 <= status["now_ms"] - status["started_ms"] < 60_000

        sent: dict[int, Sent] = {}
        async with Device(device["port"], device["name"], device["password"]).connected() as mqtt:
            await send(mqtt, sent, MESSAGES)
        await site.start_cloud()
        await site.until(site.link_is_up)
        async with Device(device["port"], device["name"], device["password"]).connected() as mqtt:
            await send(mqtt, sent, MESSAGES)
        rows = await stored(site, device_id, 2 * MESSAGES)
        assert_filed_right(rows, sent)
        assert {row["clock"] for row in rows} == {"corrected"}
        assert max(row["time_error_ms"] for row in rows) <= ERROR_MAX_MS
        assert max(row["received_time"] for row in rows) < CLOCK_UNSET_BEFORE_MS, "received stays as it came"
        status = await site.gateway_status()
        assert (status["clock"]["state"], status["clock"]["anchor"]) == ("unset", "cloud")
        assert status["clock"]["error_ms"] <= ERROR_MAX_MS
        assert abs(status["now_ms"] - now_ms()) <= ERROR_MAX_MS
        assert 0 <= status["now_ms"] - status["started_ms"] < 120_000
        assert "anchored by the cloud" in await site.command("tidegate-edge", "status", "--config", site.edge_toml)


@pytest.mark.timeout(240)
async def test_a_clock_that_steps_a_day_back_and_forth_loses_and_misfiles_nothing(tmp_path: Path) -> None:
    async with Site(tmp_path) as site:
        clock = WrongClock(tmp_path)
        site.gateway.environment = clock.environment
        await site.set_up()
        (device,) = await site.add_devices("plain", 1)
        device_id = (await site.get("devices"))["items"][0]["id"]
        await site.until(lambda: _lets_in(device))
        sent: dict[int, Sent] = {}
        async with Device(device["port"], device["name"], device["password"]).connected() as mqtt:
            for days in (0, -1, 1, 0, -1):
                clock.set_off(days * DAY_S)
                await send(mqtt, sent, MESSAGES)
        rows = await stored(site, device_id, 5 * MESSAGES)
        assert_filed_right(rows, sent)
        stepped = [row for row in rows if MESSAGES <= row["data"]["n"] < 2 * MESSAGES]
        assert {row["clock"] for row in stepped} == {"corrected"}
        behind_ms = {round((row["event_time"] - row["received_time"]) / 1000) for row in stepped}
        assert behind_ms == {DAY_S}, "received stays as it came"
        status = await site.gateway_status()
        assert status["closed"]
        assert status["totals"]["pending"] == 0
        assert status["link"]["connections"] == 1, "no step costs the link"
        assert abs(status["now_ms"] - now_ms()) <= ERROR_MAX_MS


async def _move_in_a_second_gateway(site: Site, clock: WrongClock) -> None:
    """In place of the first: enrolled as another, which has never met the cloud in this boot, with the registry of the
    first."""
    first = site.folder / "gateway"
    second = site.folder / "second"
    site.edge_toml.write_text(site.edge_toml.read_text().replace(str(first), str(second)))
    token = (await site.post("gateways", {"id": "quay-2", "name": "Quay 2"}))["enrolment"]["token"]
    await site.command("tidegate-edge", "enroll", site.url, "--token", token, "--config", site.edge_toml)
    shutil.copy(first / "replica.db", second / "replica.db")
    site.gateway = Process(
        "second", [COMMANDS / "tidegate-edge", "run", "--config", site.edge_toml], site.folder / "second.log"
    )
    site.gateway.environment = clock.environment


async def _lets_in(device: dict[str, Any]) -> bool:
    """Whether its credential has reached the gateway."""
    made = Device(device["port"], device["name"], device["password"])
    if await made.connect():
        return False
    await made.close()
    return True
