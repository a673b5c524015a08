"""Devices and fleets against a real socket: nothing that was made is forgotten, whatever the server does."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from firmware_sim.devices.device import Device
from firmware_sim.devices.roster import RosterDevice
from firmware_sim.devices.surroundings import DeviceSettings, Surroundings
from firmware_sim.fleet import Fleet, FleetPlan, FleetState
from firmware_sim.ledger import LedgerDevice, LedgerWriter, read_ledger
from firmware_sim.signals import PROFILES
from firmware_sim.verdict import judge
from tests.firmware_sim.broker import Broker

pytestmark = pytest.mark.servers


NOW_MS = 1_790_000_000_000


def ignore(state: FleetState) -> None:
    """Nobody looks at the reports."""


def roster(count: int) -> tuple[RosterDevice, ...]:
    return tuple(RosterDevice(f"pump-{number:02d}", password="secret") for number in range(count))


def plan(broker: Broker, *, count: int = 5, **changes: object) -> FleetPlan:
    settings = DeviceSettings(port=broker.port, wait_min_s=0.01, wait_max_s=0.05, answer_s=5.0)
    values = {"rate_each": 100.0, "messages": 50, "drain_s": 10.0, **changes}
    return FleetPlan(roster(count), settings, **values)  # type: ignore[arg-type]


async def run_fleet(
    wanted: FleetPlan, directory: Path, during: Callable[[], object] | None = None, stop: asyncio.Event | None = None
) -> FleetState:
    with LedgerWriter(directory, wall_ms=lambda: NOW_MS) as book:
        running = asyncio.create_task(Fleet(wanted, book, wall_ms=lambda: NOW_MS).run(stop or asyncio.Event(), ignore))
        try:
            if during is not None:
                await during()  # type: ignore[misc]
            return await running
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running


async def test_a_fleet_sends_its_messages_once_and_ends(tmp_path: Path) -> None:
    async with Broker() as broker:
        state = await run_fleet(plan(broker, messages=52), tmp_path)
        await broker.until(lambda: broker.goodbyes == 5)
        assert state.is_complete
        assert (state.made, state.acknowledged, state.resent, state.dropped) == (52, 52, 0, 0)
        assert len({one.mark for one in broker.published}) == len(broker.published) == 52
        assert not any(one.again for one in broker.published)
        connect = broker.connects[0]
        assert connect["client_id"] == connect["user"]
        assert (connect["password"], connect["flags"], connect["keep_alive_s"]) == ("secret", 0xC0, 30)
        assert state.puback_p99_ms is not None


async def test_payloads_carry_boot_seq_time_and_what_the_profile_measures(tmp_path: Path) -> None:
    async with Broker() as broker:
        await run_fleet(plan(broker, count=1, messages=3), tmp_path)
        payloads = [one.payload for one in broker.published]
        assert [payload["seq"] for payload in payloads] == [1, 2, 3]
        assert len({payload["boot"] for payload in payloads}) == 1
        assert payloads[0]["time"] == NOW_MS
        sensors = [attribute.name for attribute in PROFILES["pump"].attributes]
        assert list(payloads[0]) == ["boot", "seq", "time", *sensors]


async def test_each_start_is_a_new_boot(tmp_path: Path) -> None:
    async with Broker() as broker:
        for _ in range(2):
            await run_fleet(plan(broker, count=1, messages=2), tmp_path)
        boots = [one.payload["boot"] for one in broker.published]
        assert boots[2] == boots[0] + 1
        assert [one.payload["seq"] for one in broker.published] == [1, 2, 1, 2]


async def test_a_server_that_dies_without_answering_gets_everything_again_with_dup(tmp_path: Path) -> None:
    broker = Broker(answers=False)
    async with broker:

        async def die_and_come_back() -> None:
            await broker.until(lambda: len(broker.published) >= 20)
            await broker.close()
            broker.answers = True
            await broker.open()

        state = await run_fleet(plan(broker), tmp_path, die_and_come_back)
        assert state.is_complete
        assert state.acknowledged == 50
        assert state.resent >= 20
        first: dict[tuple[str, int, int], int] = {}
        for one in broker.published:
            assert one.again == (one.mark in first)
            assert first.setdefault(one.mark, one.packet_id) == one.packet_id
        assert len(first) == 50


async def test_the_ledger_agrees_with_the_server_over_lost_connections(tmp_path: Path) -> None:
    async with Broker() as broker:

        async def drop_now_and_then() -> None:
            for count in (10, 25, 40):
                await broker.until(lambda wanted=count: len(broker.published) >= wanted)
                broker.drop()

        state = await run_fleet(plan(broker), tmp_path, drop_now_and_then)
        assert state.acknowledged == 50
        assert state.connects > 5
        tallies = read_ledger(tmp_path)
        for number, device in enumerate(tallies.devices):
            rows = {(one.payload["boot"], one.payload["seq"]) for one in broker.published if one.user == device.name}
            verdict = judge(device, tallies.of_device(number), rows)
            assert (verdict.is_right, verdict.made, verdict.acknowledged) == (True, 10, 10)
            assert verdict.packets >= sum(one.user == device.name for one in broker.published)


async def test_a_server_that_takes_and_never_answers_is_left(tmp_path: Path) -> None:
    async with Broker(answers=False) as broker:
        settings = DeviceSettings(port=broker.port, wait_min_s=0.01, wait_max_s=0.05, answer_s=0.2)
        wanted = FleetPlan(roster(1), settings, 100.0, messages=1, drain_s=10.0)

        async def answer_the_second_time() -> None:
            await broker.until(lambda: len(broker.connects) == 2)
            broker.answers = True

        state = await run_fleet(wanted, tmp_path, answer_the_second_time)
        assert state.is_complete
        assert broker.published[-1].again


async def test_an_idle_connection_is_kept_alive(tmp_path: Path) -> None:
    async with Broker() as broker:
        settings = DeviceSettings(port=broker.port, keep_alive_s=1)
        wanted = FleetPlan(roster(1), settings, rate_each=0.001)
        stop = asyncio.Event()

        async def stop_after_pings() -> None:
            await broker.until(lambda: broker.pings >= 2)
            stop.set()

        await run_fleet(wanted, tmp_path, stop_after_pings, stop)
        assert len(broker.connects) == 1


async def test_a_refused_device_says_why_and_tries_again(tmp_path: Path) -> None:
    async with Broker(return_code=4) as broker:

        async def let_in_later() -> None:
            await broker.until(lambda: len(broker.connects) >= 3)
            broker.return_code = 0

        state = await run_fleet(plan(broker, count=1, messages=2), tmp_path, let_in_later)
        assert state.is_complete
        assert state.refused >= 2
        assert state.refusal == "pump-00: wrong user name or password"


async def test_without_a_server_the_buffer_fills_drops_the_oldest_and_the_fleet_says_so(tmp_path: Path) -> None:
    async with Broker() as broker:
        await broker.close()
        settings = DeviceSettings(port=broker.port, buffer_messages=5, window=2, wait_min_s=0.01)
        state = await run_fleet(FleetPlan(roster(1), settings, 500.0, messages=20, drain_s=0.1), tmp_path)
        await broker.open()
    assert not state.is_complete
    assert (state.made, state.dropped, state.waiting, state.sent) == (20, 15, 5, 0)
    assert next(iter(read_ledger(tmp_path).of_device(0).values())).dropped[1:16] == bytes([1]) * 15


async def test_a_reboot_forgets_the_buffer_and_counts_on(tmp_path: Path) -> None:
    async with Broker(answers=False) as broker:
        with LedgerWriter(tmp_path, wall_ms=lambda: NOW_MS) as book:
            around = Surroundings(asyncio.get_running_loop(), ledger=book, rng=random.Random(1), wall_ms=lambda: NOW_MS)
            numbers = book.enroll([LedgerDevice("pump-00", "demo", "serial", True, 40)])
            book.count_boots(numbers)
            device = Device(roster(1)[0], 0, {}, DeviceSettings(port=broker.port, wait_min_s=0.01), around)
            device.switch_on()
            assert device.measure()
            await broker.until(lambda: len(broker.published) == 1)
            device.fail_power(off_s=0.01)
            assert not device.measure()
            await broker.until(lambda: len(broker.connects) == 2)
            device.measure()
            await broker.until(lambda: len(broker.published) == 2)
            device.switch_off()
            await broker.until(lambda: broker.goodbyes == 1)
            around.timers.close()
        assert [one.mark for one in broker.published] == [("pump-00", 41, 1), ("pump-00", 42, 1)]
        assert around.counts.dropped == 1
        assert (around.counts.connected, around.counts.connects) == (0, 2)


async def test_a_device_runs_each_command_once_and_answers_until_that_is_acknowledged(tmp_path: Path) -> None:
    async with Broker() as broker:
        with LedgerWriter(tmp_path, wall_ms=lambda: NOW_MS) as book:
            around = Surroundings(asyncio.get_running_loop(), ledger=book, rng=random.Random(1), wall_ms=lambda: NOW_MS)
            numbers = book.enroll([LedgerDevice("pump-00", "demo", "serial", True, 40)])
            book.count_boots(numbers)
            settings = DeviceSettings(port=broker.port, wait_min_s=0.01, obeys=True)
            device = Device(roster(1)[0], 0, {}, settings, around)
            device.switch_on()
            await broker.until(lambda: broker.subscribed == [b"down/+/+"])
            answer = "up/response/c1", b'{"ok":true,"did":"open","run":1}'
            broker.tell("down/open/c1", bytes(300), 5)
            broker.tell("down/open/c1", b"", 6)
            await broker.until(lambda: broker.answers_to_commands == [answer, answer] and broker.acknowledged == [5, 6])
            broker.answers = False
            broker.tell("down/close/c2", b"", 7)
            await broker.until(lambda: len(broker.answers_to_commands) == 3)
            broker.drop()
            await broker.until(lambda: len(broker.answers_to_commands) == 4)
            device.switch_off()
            around.timers.close()
    assert broker.answers_to_commands[2:] == 2 * [("up/response/c2", b'{"ok":true,"did":"close","run":2}')]
    assert (device.orders.ran, device.orders.again) == (2, 1)


async def test_quality_0_is_sent_once_or_counted_as_dropped(tmp_path: Path) -> None:
    async with Broker() as broker:
        settings = DeviceSettings(port=broker.port, qos=0)
        state = await run_fleet(FleetPlan(roster(2), settings, 100.0, messages=20, drain_s=1.0), tmp_path)
        await broker.until(lambda: broker.goodbyes == 2)
        assert state.sent == len(broker.published)
        assert state.sent + state.dropped == 20
        assert not any(one.packet_id for one in broker.published)


async def test_many_devices_share_one_process(tmp_path: Path) -> None:
    async with Broker() as broker:
        wanted = plan(broker, count=300, messages=1500, rate_each=5.0)
        state = await run_fleet(wanted, tmp_path)
        assert state.is_complete
        assert len({one.mark for one in broker.published}) == 1500
        assert len(asyncio.all_tasks()) < 310  # those of the broker's connections; none of ours is left
