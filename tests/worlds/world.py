"""One world: gateways, a cloud, faults, and the laws that hold all the while."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from tests.worlds.cloud import Cloud
from tests.worlds.devices import GARBLED, KEYED, PLAIN, Device, Kind
from tests.worlds.ending import check_ending
from tests.worlds.faults import Faults
from tests.worlds.gateway import Gateway
from tests.worlds.laws import Laws
from tests.worlds.loop import Process, SimulatedLoop, SpinError
from tests.worlds.publisher import Publisher
from tests.worlds.standing import StandingWatch
from tests.worlds.trace import Trace

GATEWAYS: Final = 3
KINDS: Final = (
    Kind.TELEMETRY,
    Kind.EVENT,
    Kind.ALARM,
    Kind.KEYED,
    Kind.LATE,
    Kind.STRANGER,
    Kind.GARBLED,
    Kind.STOPPED,
)
"""Of a gateway's devices."""
MESSAGES: Final = 42
"""Of a device: 1,008 altogether."""
GROWING_EVERY: Final = 3
"""One world of so many is growing: more devices come to be known while it runs, so the inbox is replayed in several
rounds, and its registry's replicas are behind for longer, so that messages are processed meanwhile."""
GROWING_KINDS: Final = (*KINDS, Kind.LATE, Kind.LATE)
GROWING_MESSAGES: Final = 34
"""Of a device there: 1,020 altogether."""
GROWING_LAG_S: Final = 1.0
BATCHES: Final = 20
"""Of the user's own process at a gateway."""
FAULTS: Final = 24
FAULTS_S: Final = 100.0
"""Virtual seconds in which devices publish and faults come."""
QUIET_S: Final = 600.0
"""By then all has arrived: twice the longest waits of every part, one behind the other."""
REPLAYS: Final = 4
"""Of rejects, about when their codec is mended."""
LOOK_S: Final = 1.0
"""Virtual seconds between two looks at how everything stands."""


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
            Gateway(self.loop, self._more_random(), f"g{number}", self.laws, self.trace)
            for number in range(1, GATEWAYS + 1)
        ]
        self.watches = [StandingWatch(gateway) for gateway in self.gateways]
        self.cloud = Cloud(self.loop, self._more_random(), self.laws, self.trace, self.gateways)
        growing = seed % GROWING_EVERY == 1
        if growing:
            self.cloud.registry.lag_s = GROWING_LAG_S
        kinds, messages = (GROWING_KINDS, GROWING_MESSAGES) if growing else (KINDS, MESSAGES)
        self.devices = [
            self._device(gateway, _name(gateway, kinds, place), kind, messages)
            for gateway in self.gateways
            for place, kind in enumerate(kinds)
        ]
        self.publishers = [self._publisher(gateway, f"{gateway.name}-{Kind.OWN.value}") for gateway in self.gateways]
        self.faults = Faults(self.loop, self._more_random(), self.trace, self.gateways, self.cloud)

    def run(self) -> Outcome:
        collects = gc.isenabled()
        gc.disable()  # its moments are nobody's choice, and objects here do not live long
        try:
            with self.trace.takes_logs():
                try:
                    self._run()
                except SpinError as error:
                    self.laws.broken("time passes", str(error))
                lines = self.trace.lines()
                self.loop.dispose()
        finally:
            if collects:
                gc.enable()
        return Outcome(
            self.seed,
            self.laws.violations,
            lines,
            messages=sum(each.published for each in (*self.devices, *self.publishers)),
            faults=self.faults.count,
            records=sum(len(gateway.book.records) for gateway in self.gateways),
            steps=self.loop.steps,
            virtual_s=self.loop.now,
        )

    def _more_random(self) -> random.Random:
        """Apart, so that what one part draws changes nothing for the others."""
        return random.Random(self.random.getrandbits(64))

    def _device(self, gateway: Gateway, name: str, kind: Kind, messages: int) -> Device:
        network_id = {Kind.KEYED: KEYED, Kind.GARBLED: GARBLED}.get(kind, PLAIN)
        device = Device(
            self.loop,
            self._more_random(),
            name,
            kind,
            messages=messages,
            until_s=FAULTS_S * 0.9,
            network_id=network_id,
        )
        device.listener = gateway.listener
        if kind is Kind.LATE:
            self.loop.outside(FAULTS_S * self.random.random(), self._register, name, network_id)
        elif kind is not Kind.STRANGER:
            self.cloud.registry.add(name, network_id, stopped=kind is Kind.STOPPED)
        return device

    def _publisher(self, gateway: Gateway, name: str) -> Publisher:
        self.cloud.registry.add(name, PLAIN)
        process = Process(self.loop, name, lambda: 0.0)
        return Publisher(
            process,
            self._more_random(),
            name,
            gateway.listener,
            gateway.clock,
            PLAIN,
            batches=BATCHES,
            until_s=FAULTS_S * 0.9,
        )

    def _register(self, name: str, network_id: str) -> None:
        self.trace.add("api", "registers", name)
        self.cloud.admin.run(self.cloud.registry.register(name, network_id))

    def _mend(self) -> None:
        """The codec of the garbled devices; what it rejected is decoded again, twice at a time, and in vain before."""
        moments = random.Random(self.seed)
        mended_s = FAULTS_S * moments.random()
        self.loop.outside(mended_s, lambda: self.cloud.admin.run(self.cloud.registry.mend()))
        for _ in range(REPLAYS):
            self.loop.outside(mended_s * 0.9 + FAULTS_S * 0.3 * moments.random(), self.cloud.want_replay)

    def _run(self) -> None:
        self._mend()
        for gateway in self.gateways:
            self.loop.outside(self.random.random(), gateway.boot)
        for process in self.cloud.processes:
            self.loop.outside(self.random.random(), process.boot)
        for _ in range(FAULTS):
            self.loop.outside(1 + (FAULTS_S - 2) * self.random.random(), self.faults.begin)
        if self._runs_until(FAULTS_S, lambda: False):
            self.trace.add("world", "faults stop")
            self.faults.end()
            if self._settles():
                check_ending(self.laws, self.gateways, self.cloud, self.devices)
            elif not self._broken():
                self.laws.broken("progress once faults stop", self._left())
        for failure in self.loop.failures:
            self.laws.broken("nothing fails unseen", f"{failure.get('message')}: {failure.get('exception')!r}")

    def _broken(self) -> bool:
        return bool(self.laws.violations)

    def _settles(self) -> bool:
        """Whether all arrives in time, and has still arrived when everything was looked at once more."""
        until_s = FAULTS_S + QUIET_S
        while self._runs_until(until_s, self._arrived) and self.loop.now < until_s:
            if self._runs_until(self.loop.now + 2 * LOOK_S, lambda: False) and self._arrived():
                return True
        return False

    def _runs_until(self, until_s: float, done: Callable[[], bool]) -> bool:
        """Whether no law is broken until then, or until it is done."""
        while self.loop.now < until_s and not done():
            if self.loop.run_until(self._broken, until_s=min(until_s, self.loop.now + LOOK_S)):
                return False
            for watch in self.watches:
                watch.look()
        return not self._broken()

    def _arrived(self) -> bool:
        return (
            all(each.done for each in (*self.devices, *self.publishers))
            and all(gateway.drained for gateway in self.gateways)
            and self.cloud.drained
        )

    def _left(self) -> str:
        devices = [each.name for each in (*self.devices, *self.publishers) if not each.done]
        sites = [f"{gateway.name}: {gateway.standing}" for gateway in self.gateways if not gateway.drained]
        return f"devices {devices}; {'; '.join(sites)}; cloud {self.cloud.standing}"


def _name(gateway: Gateway, kinds: Sequence[Kind], place: int) -> str:
    """Of a device: the second of a kind has a number."""
    before = kinds[:place].count(kinds[place])
    return f"{gateway.name}-{kinds[place].value}" + (f"-{before + 1}" if before else "")
