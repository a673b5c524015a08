"""A fleet: many simulated devices in one process, at a steady rate; its end says whether all was acknowledged."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from firmware_sim.devices.carriers import CARRIERS
from firmware_sim.devices.device import Device
from firmware_sim.devices.roster import RosterDevice
from firmware_sim.devices.surroundings import DeviceSettings, Surroundings
from firmware_sim.ledger import FLUSH_S, LedgerDevice, LedgerWriter
from firmware_sim.signals import PROFILES
from tidegate.pause import pause

BURST_MAX: Final = 100
"""Messages that one device makes in one go when the process fell behind; the rest in the next tick, so that all devices
get their turn. None is left out."""
CONNECT_SPREAD_S: Final = 1.0
"""Devices are switched on over this time, and not all in the same millisecond."""
GOODBYE_S: Final = 0.2
"""For DISCONNECT to leave before the sockets close."""
FIRST_BOOT_MAX: Final = 2**23
"""A new device starts its boot counter anywhere below this, so that a fleet with a lost ledger does not repeat the
message keys of an earlier life."""
QUARTER_S: Final = 0.25


class FleetPlan(msgspec.Struct, frozen=True):
    """What a fleet does."""

    devices: tuple[RosterDevice, ...]
    settings: DeviceSettings
    rate_each: float
    """Messages a second of one device."""
    messages: int | None = None
    """In all, shared out evenly; then the fleet waits for the acknowledgements and ends."""
    seconds: float | None = None
    """How long devices measure; then the same."""
    drain_s: float = 60.0
    """How long the last acknowledgements are waited for."""
    reboots_per_hour: float = 0.0
    """Of each device."""
    seed: int = 1


class FleetState(msgspec.Struct, frozen=True):
    """A fleet at one moment. `puback_*`: from making a message to its acknowledgement, of any protocol, waits for a
    connection included, over the last ten seconds (at the end: over all)."""

    at: int
    """Unix ms."""
    devices: int
    connected: int
    made: int
    sent: int
    """Messages that left, those that went again included; of polled units, readings."""
    resent: int
    acknowledged: int
    dropped: int
    unread: int
    """Of polled units: measurements that nobody read before the next one."""
    waiting: int
    """In the devices' buffers, in flight included."""
    connects: int
    refused: int
    rebooted: int
    malformed: int
    """Of what was made: payloads that nobody can read."""
    repeated: int
    """Acknowledged messages that were sent once more."""
    rate: float
    """Acknowledgements a second."""
    puback_p50_ms: float | None
    puback_p99_ms: float | None
    refusal: str
    """Why a server last refused a device."""

    @property
    def is_complete(self) -> bool:
        """True if all was acknowledged that ever is."""
        return self.waiting == 0 and self.dropped == 0


class Fleet:
    """Runs a plan once."""

    def __init__(self, plan: FleetPlan, ledger: LedgerWriter, *, wall_ms: Callable[[], int]) -> None:
        self._plan = plan
        self._ledger = ledger
        self._wall_ms = wall_ms
        self._rng = random.Random(plan.seed)
        self._devices: list[Device] = []
        self._quota: list[int | None] = []
        self._measuring = True
        self._last = (0.0, 0)
        self._around: Surroundings | None = None
        self.pace = 1.0
        """Messages a second of each device, as a multiple of the plan's."""
        self.is_on = asyncio.Event()
        """Set once there are `devices`."""

    @property
    def devices(self) -> Sequence[Device]:
        """In the plan's order."""
        return self._devices

    def now(self) -> FleetState:
        """At this moment, with no rate; once it is on."""
        assert self._around is not None
        return self._state(self._around, rate=0.0, total=False)

    async def run(self, stop: asyncio.Event, report: Callable[[FleetState], None]) -> FleetState:
        """Until the plan is done or `stop` is set; `report` is called once a second."""
        around = Surroundings(
            asyncio.get_running_loop(), ledger=self._ledger, rng=random.Random(self._plan.seed), wall_ms=self._wall_ms
        )
        self._around = around
        self._build(around)
        self._start(around)
        self.is_on.set()
        self._flush(around)
        started_s = around.timers.now()
        self._last = (started_s, 0)
        reporting = asyncio.create_task(self._report(around, report))
        try:
            await self._measure_until_done(around, stop, started_s)
            self._measuring = False
            await self._wait_for_answers(around, stop)
        finally:
            self._measuring = False
            reporting.cancel()
            await self._close(around)
        around.latencies.turn()
        return self._state(around, rate=around.counts.acknowledged / (around.timers.now() - started_s), total=True)

    def _build(self, around: Surroundings) -> None:
        plan = self._plan
        # Not from the plan's seed: two fleets of one seed must not repeat each other's message keys.
        boots = random.SystemRandom()
        entries = [
            LedgerDevice(
                device.name,
                device.network,
                device.alias_key,
                device.keyed,
                boots.randrange(FIRST_BOOT_MAX),
                CARRIERS[device.protocol].is_answered(plan.settings),
            )
            for device in plan.devices
        ]
        numbers = self._ledger.enroll(entries)
        self._ledger.count_boots(numbers)
        for at, (device, number) in enumerate(zip(plan.devices, numbers, strict=True)):
            sensors = PROFILES[device.profile].sensors(random.Random(f"{plan.seed}/{device.network}/{device.name}"))
            self._devices.append(Device(device, number, sensors, plan.settings, around))
            self._quota.append(None if plan.messages is None else _share(plan.messages, len(plan.devices), at))

    def _start(self, around: Surroundings) -> None:
        now_s = around.timers.now()
        interval_s = 1 / self._plan.rate_each
        for place, device in enumerate(self._devices):
            on_s = now_s + self._rng.uniform(0.0, CONNECT_SPREAD_S)
            around.timers.at(on_s, device.switch_on)
            self._schedule(around, place, on_s + self._rng.uniform(0.0, interval_s))
            if self._plan.reboots_per_hour:
                self._schedule_reboot(around, device)

    def _schedule(self, around: Surroundings, place: int, due_s: float) -> None:
        around.timers.at(due_s, lambda: self._measure(around, place, due_s))

    def _measure(self, around: Surroundings, place: int, due_s: float) -> None:
        if not self._measuring:
            return
        interval_s = 1 / (self._plan.rate_each * self.pace)
        now_s = around.timers.now()
        device = self._devices[place]
        for _ in range(BURST_MAX):
            quota = self._quota[place]
            if quota == 0:
                return
            if device.measure() and quota is not None:
                self._quota[place] = quota - 1
            due_s += interval_s
            if due_s > now_s:
                break
        self._schedule(around, place, due_s)

    def _schedule_reboot(self, around: Surroundings, device: Device) -> None:
        def reboot() -> None:
            if self._measuring:
                device.fail_power()
                self._schedule_reboot(around, device)

        around.timers.after(self._rng.expovariate(self._plan.reboots_per_hour / 3600), reboot)

    def _flush(self, around: Surroundings) -> None:
        self._ledger.flush()
        around.timers.after(FLUSH_S, lambda: self._flush(around))

    async def _measure_until_done(self, around: Surroundings, stop: asyncio.Event, started_s: float) -> None:
        while not stop.is_set() and any(quota != 0 for quota in self._quota):
            if self._plan.seconds is not None and around.timers.now() - started_s >= self._plan.seconds:
                return
            await pause(stop, QUARTER_S)

    async def _wait_for_answers(self, around: Surroundings, stop: asyncio.Event) -> None:
        """Somebody who stops the fleet does not want to wait long."""
        was_stopped = stop.is_set()
        end_s = around.timers.now() + (min(self._plan.drain_s, 2.0) if was_stopped else self._plan.drain_s)
        while not all(device.is_idle for device in self._devices) and around.timers.now() < end_s:
            if stop.is_set() and not was_stopped:
                return
            await asyncio.sleep(QUARTER_S / 5)

    async def _report(self, around: Surroundings, report: Callable[[FleetState], None]) -> None:
        while True:
            await asyncio.sleep(1.0)
            around.latencies.turn()
            now_s, acknowledged = around.timers.now(), around.counts.acknowledged
            last_s, before = self._last
            self._last = (now_s, acknowledged)
            report(self._state(around, rate=(acknowledged - before) / (now_s - last_s), total=False))

    async def _close(self, around: Surroundings) -> None:
        for device in self._devices:
            device.switch_off()
        for task in list(around.tasks):
            task.cancel()
        await asyncio.gather(*around.tasks, return_exceptions=True)
        await asyncio.sleep(GOODBYE_S)
        around.timers.close()
        self._ledger.flush()

    def _state(self, around: Surroundings, *, rate: float, total: bool) -> FleetState:
        counts = around.counts
        latencies = around.latencies.total() if total else around.latencies.recent()
        return FleetState(
            at=self._wall_ms(),
            devices=len(self._devices),
            connected=counts.connected,
            made=counts.made,
            sent=counts.sent,
            resent=counts.resent,
            acknowledged=counts.acknowledged,
            dropped=counts.dropped,
            unread=counts.unread,
            waiting=sum(len(device.outbox) for device in self._devices),
            connects=counts.connects,
            refused=counts.refused,
            rebooted=counts.rebooted,
            malformed=counts.malformed,
            repeated=counts.repeated,
            rate=round(rate, 1),
            puback_p50_ms=_rounded(latencies.quantile_ms(0.5)),
            puback_p99_ms=_rounded(latencies.quantile_ms(0.99)),
            refusal=around.refusal,
        )


def _share(messages: int, devices: int, place: int) -> int:
    """How many of `messages` the device at `place` sends."""
    return messages // devices + (place < messages % devices)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
