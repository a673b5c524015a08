"""What goes wrong in a world. Each fault begins at a moment of the seed's choice, and mends itself or is mended."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from protocols.messages import ClockState
from tests.worlds.cloud import Cloud
from tests.worlds.gateway import Gateway
from tests.worlds.loop import SimulatedLoop
from tests.worlds.trace import Trace

STEPS_MAX: Final = 400
"""A process is killed within so many steps from now."""


class Faults:
    def __init__(
        self, loop: SimulatedLoop, rng: random.Random, trace: Trace, gateways: list[Gateway], cloud: Cloud
    ) -> None:
        self.count = 0
        self._loop = loop
        self._random = rng
        self._trace = trace
        self._gateways = gateways
        self._cloud = cloud
        kinds: list[tuple[int, Callable[[], None]]] = [
            (4, self._kill_gateway),
            (3, self._cut_power),
            (1, self._stop_gateway),
            (1, self._pause_gateway),
            (3, self._block),
            (2, self._cut),
            (1, self._slow_path),
            (2, self._fail_writes),
            (1, self._fill_disk),
            (1, self._slow_disk),
            (2, self._flip),
            (1, self._rot_tail),
            (1, self._unreadable_disk),
            (1, self._restore_disk),
            (1, self._lose_bus_answers),
            (2, self._step_clock),
            (4, self._kill_cloud),
            (1, self._pause_cloud),
            (2, self._crash_nats),
            (1, self._lose_nats_answers),
            (1, self._fill_nats),
            (1, self._lag),
            (2, self._crash_database),
            (2, self._lose_commits),
        ]
        self._kinds = [kind for weight, kind in kinds for _ in range(weight)]

    def begin(self) -> None:
        """One more, of any kind."""
        self.count += 1
        self._random.choice(self._kinds)()

    def end(self) -> None:
        """Everything that lasts is over; what is down comes back by itself."""
        for gateway in self._gateways:
            gateway.path.unblock()
            gateway.path.delay_s = (0.002, 0.05)
            disk = gateway.disk
            disk.write_trouble, disk.full, disk.slow_s, disk.unreadable = 0.0, False, 0.0, False
            gateway.bus_loses = 0.0
            disk.stay_on()
            gateway.clock.synchronize()
            if gateway.life is not None:
                gateway.life.process.steps_left = None
                gateway.life.process.go_on()
        for each in self._cloud.processes:
            if each.process is not None:
                each.process.steps_left = None
                each.process.go_on()
        self._cloud.nats.loses = 0.0
        self._cloud.nats.full = False
        self._cloud.nats.busy_bytes = 0
        self._cloud.uncertain = 0.0

    def _gateway(self) -> Gateway:
        return self._random.choice(self._gateways)

    def _tell(self, who: str, what: str, *facts: object) -> None:
        self._trace.add(who, f"fault: {what}", *facts)

    def _for(self, least_s: float, most_s: float, undo: Callable[..., object], *args: object) -> None:
        self._loop.outside(least_s + (most_s - least_s) * self._random.random(), undo, *args)

    # Gateways

    def _kill_gateway(self) -> None:
        gateway = self._gateway()
        life = gateway.life
        if life is not None:
            power, back_s = self._random.random() < 0.5, 0.5 + 10 * self._random.random()
            life.process.on_steps_out = lambda: gateway.crash(power=power, back_s=back_s)
            life.process.steps_left = self._random.randrange(STEPS_MAX)

    def _cut_power(self) -> None:
        gateway = self._gateway()
        self._tell(gateway.name, "power goes in a change of the disk")
        gateway.cut_power_at(self._random.randrange(40))

    def _stop_gateway(self) -> None:
        """In good order, as for an update."""
        gateway = self._gateway()
        if gateway.life is not None:
            self._tell(gateway.name, "stop")
            gateway.life.process.do(gateway.life.stop.set)

    def _pause_gateway(self) -> None:
        gateway = self._gateway()
        if gateway.life is not None:
            self._tell(gateway.name, "pause")
            process = gateway.life.process
            process.stop()
            self._for(1, 70, process.go_on)

    def _block(self) -> None:
        gateway = self._gateway()
        gateway.path.block(*self._random.choice((("up",), ("down",), ("up", "down"))))  # type: ignore[arg-type]
        self._tell(gateway.name, "blocked", *sorted(gateway.path.blocked))
        self._for(5, 60, gateway.path.unblock)

    def _cut(self) -> None:
        gateway = self._gateway()
        told = self._random.choice(("both", "gateway", "cloud", "nobody"))
        self._tell(gateway.name, "cut, told:", told)
        gateway.path.cut(told)  # type: ignore[arg-type]

    def _slow_path(self) -> None:
        gateway = self._gateway()
        self._tell(gateway.name, "slow path")
        gateway.path.delay_s = (0.5, 6.0)
        self._for(5, 40, setattr, gateway.path, "delay_s", (0.002, 0.05))

    def _fail_writes(self) -> None:
        gateway = self._gateway()
        self._tell(gateway.name, "writes fail")
        gateway.disk.write_trouble = self._random.choice((0.05, 0.3, 1.0))
        self._for(0.1, 8, setattr, gateway.disk, "write_trouble", 0.0)

    def _fill_disk(self) -> None:
        gateway = self._gateway()
        self._tell(gateway.name, "disk full")
        gateway.disk.full = True
        self._for(1, 20, setattr, gateway.disk, "full", False)

    def _slow_disk(self) -> None:
        gateway = self._gateway()
        self._tell(gateway.name, "slow disk")
        gateway.disk.slow_s = self._random.choice((0.05, 0.5, 3.0))
        self._for(1, 10, setattr, gateway.disk, "slow_s", 0.0)

    def _flip(self) -> None:
        self._gateway().flip()

    def _rot_tail(self) -> None:
        """While the machine is off, a bit of the last block goes."""
        gateway = self._gateway()
        gateway.crash(power=True, back_s=1.0)
        if gateway.life is None:
            gateway.flip_tail()

    def _unreadable_disk(self) -> None:
        gateway = self._gateway()
        self._tell(gateway.name, "disk cannot be read")
        gateway.disk.unreadable = True
        self._for(0.5, 8, setattr, gateway.disk, "unreadable", False)

    def _restore_disk(self) -> None:
        """A copy is taken now, and put in the disk's place a while later."""
        gateway = self._gateway()
        gateway.keep_image()

        def restore() -> None:
            gateway.crash(power=True, back_s=1.0)
            if gateway.life is None:
                gateway.restore_image()

        self._for(1, 40, restore)

    def _lose_bus_answers(self) -> None:
        gateway = self._gateway()
        self._tell(gateway.name, "bus loses answers")
        gateway.bus_loses = 0.3
        self._for(1, 20, setattr, gateway, "bus_loses", 0.0)

    def _step_clock(self) -> None:
        gateway = self._gateway()
        ahead_ms = self._random.choice((-400_000_000, -3_600_000, -2_000, 1_500, 86_400_000))
        self._tell(gateway.name, "clock set", ahead_ms)
        gateway.clock.step(ahead_ms, self._random.choice((ClockState.SYNCHRONIZED, ClockState.RESTORED)))
        self._for(5, 40, gateway.clock.synchronize)

    # Cloud

    def _kill_cloud(self) -> None:
        each = self._random.choice(self._cloud.processes)
        if each.process is not None:
            power, back_s = self._random.random() < 0.5, 0.5 + 10 * self._random.random()
            each.process.on_steps_out = lambda: each.crash(power=power, back_s=back_s)
            each.process.steps_left = self._random.randrange(STEPS_MAX)

    def _pause_cloud(self) -> None:
        each = self._random.choice(self._cloud.processes)
        if each.process is not None:
            self._tell(each.name, "pause")
            each.process.stop()
            self._for(1, 40, each.process.go_on)

    def _crash_nats(self) -> None:
        self._cloud.crash_nats(back_s=0.5 + 10 * self._random.random())

    def _lose_nats_answers(self) -> None:
        self._tell("nats", "loses answers")
        self._cloud.nats.loses = 0.3
        self._for(1, 20, setattr, self._cloud.nats, "loses", 0.0)

    def _fill_nats(self) -> None:
        self._tell("nats", "full")
        self._cloud.nats.full = True
        self._for(1, 20, setattr, self._cloud.nats, "full", False)

    def _lag(self) -> None:
        """The services are behind: backfill gets no credit."""
        self._tell("nats", "seems busy")
        self._cloud.nats.busy_bytes = 8 * 1024 * 1024
        self._for(1, 30, setattr, self._cloud.nats, "busy_bytes", 0)

    def _crash_database(self) -> None:
        self._cloud.crash_database(back_s=0.2 + 8 * self._random.random())

    def _lose_commits(self) -> None:
        self._tell("database", "connections are lost in commits")
        self._cloud.uncertain = 0.3
        self._for(1, 15, setattr, self._cloud, "uncertain", 0.0)
