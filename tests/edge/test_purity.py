"""The law of event times: whenever a record is resolved in the cloud, it gets the same one; and true time lies within
the error that it is told with.

A gateway's anchors and a cloud's copy of them, while clocks step, drift, are set and forgotten, disks fail, answers are
lost, and processes and machines start again, at any moments; records are sent and sent again in any order in between.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from edge.anchors import AGE_MAX_MS, Anchors
from edge.listeners.clock import GatewayClock
from edge.listeners.collector import CLOCK_STEP_MS
from protocols.batch import BatchKey, RecordBatch
from protocols.messages import Anchor, Clock, ClockState, Origin
from protocols.shipment import CLOCK_CORRECTED, CLOCK_UNSURE, Run
from sync.registry import Network, Registry, RegistryChange
from sync.resolve import Resolver
from tests.edge.listeners.memory_bus import SetClock
from tests.edge.test_anchors import DAY_MS, NOW, YEAR_MS, MemoryFile

STAMP_MS = CLOCK_STEP_MS + 1
"""A stamp may be off by so much within its batch."""
WAY_MS = st.sampled_from([0, 5, 4_000])
ORIGIN = Origin("quay", "serial", "pump", "up", "", "mqtt")

REGISTRY = Registry("demo")
REGISTRY.apply(RegistryChange("demo", 0, 1, (Network("quay"),)))


class Made(msgspec.Struct):
    batch: RecordBatch
    true_ms: float
    told: tuple[int, int, int | None] | None = None
    """Event time, flags and error, as the cloud resolved it first."""


class Gateway(RuleBasedStateMachine):
    @initialize(drift_ppm=st.sampled_from([-100, -7, 100]), set_ms=st.sampled_from([0, NOW - YEAR_MS, NOW + YEAR_MS]))
    def begin(self, drift_ppm: int, set_ms: int) -> None:
        self.true_ms = float(NOW)
        self.drift = 1 + drift_ppm / 1e6
        self.machine = SetClock()
        self.machine.boot = 0
        self.machine.now_state = ClockState.UNSET
        self.booted_ms = self.true_ms
        self._show_boot_clock()
        self.machine.offset_ms = set_ms
        self.file = MemoryFile()
        self.cloud: dict[int, list[Anchor]] = {}
        self.records: list[Made] = []
        self.deceived = False
        """Somebody told a wrong time, or the boot clock stood still: no bound holds."""
        self._start()

    @rule(by_ms=st.sampled_from([1, 60, 5_000, AGE_MAX_MS // 2, AGE_MAX_MS + 200, 60 * DAY_MS]))
    def time_passes(self, by_ms: int) -> None:
        self._pass(by_ms)

    @rule(what=st.sampled_from(["step", "slew", "synchronized", "deceived", "stopped"]), by=st.sampled_from([-1, 1]))
    def clock_changes(self, what: str, by: int) -> None:
        machine = self.machine
        match what:
            case "step":
                machine.offset_ms += by * YEAR_MS
                machine.now_state = ClockState.RESTORED
            case "slew":
                machine.offset_ms += by * CLOCK_STEP_MS
                machine.now_state = ClockState.RESTORED
            case "synchronized":
                self._synchronize(by * machine.now_error_ms)
            case "deceived":
                self.deceived = True
                self._synchronize(by * DAY_MS)
            case "stopped":  # a virtual machine, and its boot clock with it
                self.deceived = True
                self.true_ms += 10_000
                self.booted_ms += 10_000

    @rule(
        what=st.sampled_from(["process", "machine", "machine without a battery"]),
        off_ms=st.sampled_from([0, 60_000, DAY_MS]),
    )
    def starts_again(self, what: str, off_ms: int) -> None:
        machine, shown_ms = self.machine, self.machine.wall_ms()
        self._pass(off_ms if what != "process" else 0)
        if what != "process":
            machine.boot += 1
            self.booted_ms = self.true_ms
            self._show_boot_clock()
            machine.offset_ms = shown_ms - machine.boot_now_ms if what == "machine" else 0
            machine.now_state = ClockState.RESTORED if what == "machine" else ClockState.UNSET
        self._start()

    @rule(same_batch=st.booleans(), seen_ms=st.sampled_from([0, 1, 60, 5_000]))
    def record(self, same_batch: bool, seen_ms: int) -> None:
        """As the collector stamps it; some time after the last."""
        self._pass(seen_ms)
        wall_ms, offset_ms = self.clock.wall_ms(), self.clock.wall_ms() - self.clock.boot_ms()
        filling = self.filling
        if not same_batch or filling is None or abs(offset_ms - filling.offset_ms) > CLOCK_STEP_MS:
            filling = self.filling = Clock(self.clock.boot, offset_ms, self.clock.state())
        batch = RecordBatch(BatchKey(1, len(self.records)), filling, wall_ms, [ORIGIN], [0], [0], [b'{"v":1}'])
        self.records.append(Made(batch, self.true_ms))

    @rule(
        asked=st.sampled_from(["not", "by a probe", "by a greeting"]),
        there_ms=WAY_MS,
        back_ms=WAY_MS,
        is_answered=st.sampled_from([True, True, True, False]),
        newest=st.integers(1, 4),
    )
    def ship(self, asked: str, there_ms: int, back_ms: int, is_answered: bool, newest: int) -> None:
        """Anchors first, and records only if the cloud answers that it has them: the newest few. All that it was sent
        before comes again anyway."""
        if not self.is_connected or asked == "by a greeting":
            self.anchors.note_cloud_time(self._ask(there_ms, back_ms), there_ms + back_ms)
        elif asked == "by a probe":
            self.anchors.note_probe(self._ask(there_ms, back_ms), there_ms + back_ms)
        told = self.anchors.unkept()
        for anchor in told:
            kept = self.cloud.setdefault(anchor.boot, [])
            if anchor.boot_ms not in [one.boot_ms for one in kept]:
                kept.append(anchor)
                kept.sort()
        self.is_connected = is_answered
        if is_answered:
            self.anchors.kept(told)
            self._resolve(self.records[-newest:])

    @rule()
    def look(self) -> None:
        self.anchors.look()

    @rule(what=st.sampled_from(["fails", "works", "damaged"]))
    def disk(self, what: str) -> None:
        self.file.fails = what == "fails"
        if what == "damaged" and self.file.data:
            self.file.data = self.file.data[:40]

    # ---- what must hold ----

    @invariant()
    def the_cloud_resolves_everything_it_has_as_before(self) -> None:
        self._resolve([made for made in self.records if made.told is not None])

    def _resolve(self, records: Sequence[Made]) -> None:
        resolver = Resolver(REGISTRY, self.cloud)
        for number, made in enumerate(records):
            resolver.add(Run(1, 1, number, 1), [made.batch])
        out = resolver.finish()
        errors = out.time_error_ms or [None] * len(out)
        for made, event_time, flags, error_ms in zip(records, out.event_time, out.flags, errors, strict=True):
            told = event_time, flags, error_ms
            assert made.told in (None, told)
            made.told = told
            assert not flags & CLOCK_UNSURE or made.batch.clock.boot not in self.cloud
            if flags & CLOCK_CORRECTED and not self.deceived and error_ms is not None:
                assert abs(event_time - made.true_ms) <= error_ms + STAMP_MS

    def _start(self) -> None:
        self.is_connected = False
        self.filling: Clock | None = None
        self.anchors = Anchors(self.file, self.machine)
        self.clock = GatewayClock(self.machine, self.anchors)

    def _ask(self, there_ms: int, back_ms: int) -> int:
        """What the cloud's clock shows when the question has come."""
        self._pass(there_ms)
        server_ms = int(self.true_ms)
        self._pass(back_ms)
        return server_ms

    def _pass(self, by_ms: int) -> None:
        self.true_ms += by_ms
        self._show_boot_clock()
        if self.machine.now_state is ClockState.SYNCHRONIZED and not self.deceived:
            self._synchronize(0)

    def _synchronize(self, off_ms: int) -> None:
        self.machine.offset_ms = round(self.true_ms) + off_ms - self.machine.boot_now_ms
        self.machine.now_state = ClockState.SYNCHRONIZED

    def _show_boot_clock(self) -> None:
        self.machine.boot_now_ms = int((self.true_ms - self.booted_ms) / self.drift)


Gateway.TestCase.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
test_event_times_never_change = Gateway.TestCase
