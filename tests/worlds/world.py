"""One world: gateways, a cloud, faults, and the laws that hold all the while."""

from __future__ import annotations

import gc
import random
from typing import Final

import msgspec

from tests.worlds.cloud import Cloud
from tests.worlds.devices import PLAIN, Device, Kind
from tests.worlds.gateway import Gateway
from tests.worlds.laws import Laws
from tests.worlds.loop import SimulatedLoop, SpinError
from tests.worlds.trace import Trace

GATEWAYS: Final = 3
DEVICES: Final = 6
MESSAGES: Final = 60
"""Of a device: 1,080 altogether."""
FAULTS: Final = 22
FAULTS_S: Final = 100.0
"""Virtual seconds in which devices publish and faults come."""
QUIET_S: Final = 400.0
"""By then all has arrived: twice the longest waits of every part, one behind the other."""
KINDS: Final = (Kind.TELEMETRY, Kind.TELEMETRY, Kind.KEYED, Kind.ALARM, Kind.LATE, Kind.GARBLED)


class Outcome(msgspec.Struct):
    seed: int
    violations: list[str]
    trace: list[str]
    messages: int = 0
    faults: int = 0
    records: int = 0
    steps: int = 0
    virtual_s: float = 0.0


class World:
    def __init__(self, seed: int, *, whole_trace: bool = False) -> None:
        self.seed = seed
        self.loop = SimulatedLoop(seed)
        self.random = random.Random(seed * 2 + 1)
        self.trace = Trace(self.loop.time, whole=whole_trace)
        self.laws = Laws(self.trace)
        self.gateways = [
            Gateway(
                self.loop,
                random.Random(self.random.getrandbits(64)),
                f"g{number}",
                self.laws,
                self.trace,
                segments=self.random.choice((4, 8, 16)),
            )
            for number in range(1, GATEWAYS + 1)
        ]
        self.cloud = Cloud(self.loop, random.Random(self.random.getrandbits(64)), self.laws, self.trace, self.gateways)
        self.devices = [
            self._device(gateway, f"{gateway.name}-d{number}", kind)
            for gateway in self.gateways
            for number, kind in enumerate(KINDS)
        ]
        self.faults = 0
        self.over = False

    def _device(self, gateway: Gateway, name: str, kind: Kind) -> Device:
        device = Device(
            self.loop,
            random.Random(self.random.getrandbits(64)),
            name,
            kind,
            messages=MESSAGES,
            until_s=FAULTS_S,
            network_id=PLAIN,
        )
        device.listener = gateway.listener
        return device

    def run(self) -> Outcome:
        collects = gc.isenabled()
        gc.disable()  # its moments are nobody's choice, and objects here do not live long
        self.trace.take_logs()
        try:
            self._run()
        except SpinError as error:
            self.laws.broken("time passes", str(error))
        finally:
            self.loop.dispose()
            if collects:
                gc.enable()
        return Outcome(
            self.seed,
            self.laws.violations,
            self.trace.lines(),
            messages=sum(device.published for device in self.devices),
            faults=self.faults,
            records=sum(len(gateway.book.records) for gateway in self.gateways),
            steps=self.loop.steps,
            virtual_s=self.loop.now,
        )

    def _run(self) -> None:
        for gateway in self.gateways:
            self.loop.outside(self.random.random(), gateway.boot)
        self.loop.outside(self.random.random(), self.cloud.boot)
        for _ in range(FAULTS):
            self.loop.outside(1 + (FAULTS_S - 2) * self.random.random(), self._fault)
        if not self.loop.run_until(self._broken, until_s=FAULTS_S):
            self._mend()
            if not self.loop.run_until(lambda: self._broken() or self._drained(), until_s=FAULTS_S + QUIET_S):
                self.laws.broken("progress once faults stop", self._left())
        for failure in self.loop.failures:
            self.laws.broken("nothing fails unseen", f"{failure.get('message')}: {failure.get('exception')!r}")

    def _broken(self) -> bool:
        return bool(self.laws.violations)

    def _fault(self) -> None:
        self.faults += 1
        rng = self.random
        gateway = rng.choice(self.gateways)
        kind = rng.randrange(6)
        if kind == 0 and gateway.life is not None:
            life = gateway.life
            life.process.on_steps_out = lambda: gateway.crash(power=rng.random() < 0.5, back_s=1 + 10 * rng.random())
            life.process.steps_left = rng.randrange(200)
        elif kind == 1:
            gateway.path.block(*rng.choice((("up",), ("down",), ("up", "down"))))
            self.trace.add(gateway.name, "blocked", *sorted(gateway.path.blocked))
            self.loop.outside(5 + 50 * rng.random(), gateway.path.unblock)
        elif kind == 2:
            told = rng.choice(("both", "gateway", "cloud", "nobody"))
            self.trace.add(gateway.name, "cut, told:", told)
            gateway.path.cut(told)
        elif kind == 3 and self.cloud.process is not None:
            self.cloud.process.on_steps_out = lambda: self.cloud.crash(
                power=rng.random() < 0.5, back_s=10 * rng.random()
            )
            self.cloud.process.steps_left = rng.randrange(200)
        elif kind == 4:
            gateway.disk.write_trouble = 0.2
            self.trace.add(gateway.name, "disk fails")
            self.loop.outside(10 * rng.random(), setattr, gateway.disk, "write_trouble", 0.0)
        elif kind == 5:
            gateway.bus_loses = 0.3
            self.loop.outside(10 * rng.random(), setattr, gateway, "bus_loses", 0.0)

    def _mend(self) -> None:
        self.trace.add("world", "faults stop")
        self.over = True
        for gateway in self.gateways:
            gateway.path.unblock()
            gateway.disk.write_trouble = 0.0
            gateway.bus_loses = 0.0
            if gateway.life is not None:
                gateway.life.process.steps_left = None

    def _drained(self) -> bool:
        return all(device.done for device in self.devices) and all(
            gateway.life is not None and gateway.life.listening and gateway.life.log.accounting().pending == 0
            for gateway in self.gateways
        )

    def _left(self) -> str:
        return (
            ", ".join(
                f"{gateway.name}: {gateway.life.log.accounting() if gateway.life else 'down'}"
                for gateway in self.gateways
            )
            + f"; devices: {[device.name for device in self.devices if not device.done]}"
        )
