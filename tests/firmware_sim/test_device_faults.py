"""What firmware does wrong, or has done to it: each against a real socket, and the ledger knows of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from firmware_sim.devices.clock import DeviceClock
from firmware_sim.devices.device import Device
from firmware_sim.devices.garble import garbled, mark_in
from firmware_sim.devices.roster import RosterDevice
from firmware_sim.devices.surroundings import DeviceSettings, Surroundings
from firmware_sim.ledger import LedgerDevice, LedgerWriter, read_ledger
from protocols.codecs import CODECS, CodecSpec
from tests.firmware_sim.broker import Broker

pytestmark = pytest.mark.servers

NOW_MS = 1_790_000_000_000
BOOT = 41


@asynccontextmanager
async def device(broker: Broker, directory: Path, **changes: int) -> AsyncIterator[tuple[Device, Surroundings]]:
    """One that is connected; its first boot is BOOT."""
    with LedgerWriter(directory, wall_ms=lambda: NOW_MS) as book:
        around = Surroundings(asyncio.get_running_loop(), ledger=book, rng=random.Random(1), wall_ms=lambda: NOW_MS)
        book.count_boots(book.enroll([LedgerDevice("pump-00", "demo", "serial", True, BOOT - 1)]))
        settings = DeviceSettings(port=broker.port, wait_min_s=0.01, recent_messages=10, **changes)
        made = Device(RosterDevice("pump-00", password="secret"), 0, {}, settings, around)
        made.switch_on()
        await broker.until(lambda: broker.connects)
        async with asyncio.timeout(10):
            while not around.counts.connected:
                await asyncio.sleep(0.01)
        try:
            yield made, around
        finally:
            made.switch_off()
            around.timers.close()


def seqs(broker: Broker) -> list[int]:
    return [one.payload["seq"] for one in broker.published]


async def acknowledged(around: Surroundings, count: int) -> None:
    async with asyncio.timeout(10):
        while around.counts.acknowledged < count:
            await asyncio.sleep(0.01)


async def test_a_firmware_restart_keeps_what_was_not_delivered(tmp_path: Path) -> None:
    async with Broker(answers=False) as broker:
        async with device(broker, tmp_path) as (pump, around):
            pump.measure()
            await broker.until(lambda: len(broker.published) == 1)
            pump.restart(off_s=0.01)
            assert not pump.measure()
            broker.answers = True
            await broker.until(lambda: len(broker.published) == 2)
            pump.measure()
            await acknowledged(around, 2)
        marks = [(one.payload["boot"], one.payload["seq"], one.again) for one in broker.published]
        assert marks == [(BOOT, 1, False), (BOOT, 1, True), (BOOT + 1, 1, False)]
        assert around.counts.dropped == 0


async def test_a_device_that_holds_sends_later_with_the_times_of_its_measurements(tmp_path: Path) -> None:
    async with Broker() as broker, device(broker, tmp_path) as (pump, around):
        pump.hold(0.3)
        pump.measure()
        pump.measure()
        assert (around.counts.sent, len(pump.outbox)) == (0, 2)
        await acknowledged(around, 2)
        assert seqs(broker) == [1, 2]


async def test_repeats_go_with_dup_and_a_new_packet_id_and_are_no_new_messages(tmp_path: Path) -> None:
    async with Broker() as broker:
        async with device(broker, tmp_path) as (pump, around):
            for _ in range(3):
                pump.measure()
            await acknowledged(around, 3)
            assert pump.repeat(2) == 2
            await broker.until(lambda: len(broker.published) == 5)
        assert [(one.payload["seq"], one.again) for one in broker.published[3:]] == [(2, True), (3, True)]
        assert len({one.packet_id for one in broker.published}) == 5
        assert (around.counts.made, around.counts.acknowledged, around.counts.repeated) == (3, 3, 2)
        tally = read_ledger(tmp_path).of_device(0)[BOOT]
        assert list(tally.sends) == [0, 1, 2, 2]


async def test_repeats_never_push_out_what_was_not_delivered(tmp_path: Path) -> None:
    async with Broker() as broker, device(broker, tmp_path, buffer_messages=3, window=2) as (pump, around):
        for _ in range(3):
            pump.measure()
        await acknowledged(around, 3)
        pump.hold(10)
        pump.measure()
        pump.measure()
        assert pump.repeat(10) == 1
        assert around.counts.dropped == 0


async def test_malformed_payloads_are_in_the_ledger_and_can_be_told_from_their_bytes(tmp_path: Path) -> None:
    async with Broker() as broker:
        async with device(broker, tmp_path) as (pump, around):
            pump.garble(2)
            for _ in range(3):
                pump.measure()
            await acknowledged(around, 3)
        assert [mark_in(one.raw) for one in broker.published] == [(BOOT, 1), (BOOT, 2), (BOOT, 3)]
        assert len(undecodable([one.raw for one in broker.published])) == 2
        assert list(read_ledger(tmp_path).of_device(0)[BOOT].malformed) == [0, 1, 1, 0]
        assert around.counts.malformed == 2


def undecodable(payloads: list[bytes]) -> list[int]:
    return [place for place, _ in CODECS["json"](CodecSpec(key_paths=("boot", "seq")))(payloads).errors]


def test_whatever_is_garbled_cannot_be_read_and_still_says_which_it_was() -> None:
    payload = b'{"boot":41,"seq":7,"time":1790000000000,"temperature":71.5,"running":true}'
    made = {garbled(payload, random.Random(seed)) for seed in range(50)}
    assert len(made) == 4
    assert len(undecodable(list(made))) == 4
    assert {mark_in(one) for one in made} == {(41, 7)}
    assert mark_in(b'{"temperature":1}') is None


def test_a_wrong_clock_runs_at_its_own_speed_until_it_is_set_right() -> None:
    wall = [NOW_MS]
    clock = DeviceClock(lambda: wall[0])
    assert clock.now_ms() == NOW_MS
    clock.set_wrong(-7_200_000, 100.0)
    assert clock.now_ms() == NOW_MS - 7_200_000
    wall[0] += 10_000_000
    assert clock.now_ms() == NOW_MS + 10_000_000 - 7_200_000 + 1_000
    clock.unset()
    assert clock.now_ms() == 0
    wall[0] += 5
    assert clock.now_ms() == 5
    clock.set_right()
    assert clock.now_ms() == wall[0]


async def test_a_wrong_clock_gives_the_time_in_the_payload(tmp_path: Path) -> None:
    async with Broker() as broker:
        async with device(broker, tmp_path) as (pump, around):
            pump.clock.set_wrong(-86_400_000, 0.0)
            pump.measure()
            await acknowledged(around, 1)
        assert broker.published[0].payload["time"] == NOW_MS - 86_400_000
        assert read_ledger(tmp_path).first_ms == NOW_MS - 86_400_000
