"""Anchors of boot clocks: when they are made, that they last, and what is true time meanwhile."""

from __future__ import annotations

import errno
from pathlib import Path

import msgspec
import pytest

from edge.anchors import (
    AGE_MAX_MS,
    ANCHORS_MAX,
    BOOT_ANCHORS_MAX,
    DISPUTE_MS,
    FILE,
    LEAD_MS,
    OFF_MS,
    Anchors,
    FolderFile,
)
from edge.listeners.clock import GatewayClock
from edge.listeners.collector import CLOCK_STEP_MS
from protocols.messages import Anchor, Clock, ClockState
from protocols.times import true_time
from tests.edge.listeners.memory_bus import SetClock

NOW = 1_770_000_000_000
DAY_MS = 24 * 3600 * 1000
YEAR_MS = 365 * DAY_MS
HOUR_MS = 3600 * 1000


class MemoryFile:
    """The data folder's, whose disk may fail."""

    def __init__(self, data: bytes | None = None) -> None:
        self.data = data
        self.aside: bytes | None = None
        self.fails = False
        self.writes = 0

    def read(self) -> bytes | None:
        self._check()
        return self.data

    def write(self, data: bytes) -> None:
        self._check()
        self.data = data
        self.writes += 1

    def set_aside(self) -> None:
        self._check()
        self.aside, self.data = self.data, None

    def _check(self) -> None:
        if self.fails:
            raise OSError(errno.EIO, "Input/output error")


@pytest.fixture
def clock() -> SetClock:
    """Booted 10 s ago, in 1970."""
    made = SetClock()
    made.offset_ms = 0
    made.now_state = ClockState.UNSET
    return made


@pytest.fixture
def file() -> MemoryFile:
    return MemoryFile()


def synchronize(clock: SetClock, wall_ms: int) -> None:
    clock.offset_ms = wall_ms - clock.boot_now_ms
    clock.now_state = ClockState.SYNCHRONIZED


def test_the_first_greeting_of_a_boot_in_1970_anchors_it(clock: SetClock, file: MemoryFile) -> None:
    anchors = Anchors(file, clock)
    assert (anchors.newest, anchors.unkept(), anchors.true_ms()) == (None, (), clock.wall_ms())
    anchors.note_cloud_time(NOW, 41)
    (anchor,) = anchors.unkept()
    assert anchor.boot_ms - clock.boot_ms() == LEAD_MS
    assert abs(anchor.wall_ms - LEAD_MS - (NOW + 20.5)) <= 1, "sent half a round trip ago"
    assert 20.5 < anchor.error_ms <= 24, "it may have been sent at any moment of the round trip"
    assert (anchor.boot, anchor.origin) == (clock.boot, "cloud")
    assert anchors.by_boot == {clock.boot: [anchor]}
    assert Anchors(file, clock).by_boot == {clock.boot: [anchor]}, "a start of the gateway in the same boot finds it"


def test_the_kernel_tells_the_time_without_any_cloud(clock: SetClock, file: MemoryFile) -> None:
    anchors = Anchors(file, clock)
    anchors.look()
    assert anchors.newest is None
    synchronize(clock, NOW)
    anchors.look()
    assert anchors.newest == Anchor(
        clock.boot, clock.boot_ms() + LEAD_MS, NOW + LEAD_MS, clock.now_error_ms + 3, "kernel"
    )
    anchors.note_cloud_time(NOW + 300, 10)
    assert anchors.unkept() == (anchors.newest,), "a cloud that differs by less than is worth it changes nothing"


def test_what_the_cloud_has_is_told_again_on_the_next_connection(clock: SetClock, file: MemoryFile) -> None:
    anchors = Anchors(file, clock)
    anchors.note_cloud_time(NOW, 10)
    told = anchors.unkept()
    anchors.kept(told)
    assert anchors.unkept() == ()
    anchors.note_probe(NOW, 10)
    assert anchors.unkept() == ()
    anchors.note_cloud_time(NOW, 10)
    assert anchors.unkept() == told, "this cloud may have been restored from a backup"


@pytest.mark.parametrize(
    ("later_ms", "off_ms", "round_trip_ms", "is_made"),
    [
        (60_000, 0, 10, False),
        (60_000, OFF_MS, 10, False),
        (60_000, OFF_MS + 100, 10, True),
        (60_000, -OFF_MS - 100, 10, True),
        (60_000, OFF_MS + 100, 1_000, False),
        (AGE_MAX_MS, 0, 10, False),
        (AGE_MAX_MS + 2, 0, 10, True),
        (AGE_MAX_MS + 2, 0, 10_000, False),
        (0, YEAR_MS, 10, False),
    ],
    ids=[
        "agrees",
        "off by no more than it may be",
        "behind",
        "ahead",
        "off by no more than the round trip explains",
        "six hours",
        "older than six hours",
        "older than six hours, but what is known now is worse",
        "only just made",
    ],
)
def test_another_anchor_is_made_when_the_last_is_old_or_wrong(
    clock: SetClock, file: MemoryFile, later_ms: int, off_ms: int, round_trip_ms: int, is_made: bool
) -> None:
    anchors = Anchors(file, clock)
    anchors.note_cloud_time(NOW, 10)
    anchors.kept(anchors.unkept())
    clock.boot_now_ms += later_ms
    anchors.note_probe(NOW + 5 + later_ms + off_ms - round_trip_ms // 2, round_trip_ms)
    assert bool(anchors.unkept()) is is_made


def test_an_anchor_dates_nothing_that_was_stamped_before_it_was_made(clock: SetClock, file: MemoryFile) -> None:
    anchors = Anchors(file, clock)
    anchors.note_cloud_time(NOW, 10)
    clock.boot_now_ms += 10 * AGE_MAX_MS
    begun = Clock(clock.boot, clock.offset_ms, clock.state())
    clock.offset_ms += CLOCK_STEP_MS  # not enough for another batch
    before_ms = anchors.true_received_ms(begun, clock.wall_ms())
    anchors.note_probe(NOW - 3_600_000, 10)
    assert len(anchors.unkept()) == 2
    assert anchors.true_received_ms(begun, clock.wall_ms()) == before_ms
    clock.boot_now_ms += 2 * LEAD_MS
    assert anchors.true_received_ms(begun, clock.wall_ms()) < before_ms, "what comes after it, it dates"


def test_old_news_makes_no_anchor(clock: SetClock, file: MemoryFile) -> None:
    anchors = Anchors(file, clock)
    anchors.note_cloud_time(NOW, 10)
    for _ in range(100):
        clock.boot_now_ms += AGE_MAX_MS
        anchors.look()
    assert len(anchors.unkept()) == 1, "the cloud was never heard again"


@pytest.mark.parametrize("step_ms", [-56 * YEAR_MS, -DAY_MS, DAY_MS, 10 * YEAR_MS])
def test_true_time_goes_on_when_the_wall_clock_steps(clock: SetClock, file: MemoryFile, step_ms: int) -> None:
    for state in ClockState:
        synchronize(clock, NOW)
        anchors = Anchors(MemoryFile(), clock)
        anchors.note_cloud_time(NOW, 0)
        shown = GatewayClock(clock, anchors)
        begun_ms = shown.steady_ms()
        clock.offset_ms += step_ms
        clock.now_state = state
        clock.boot_now_ms += 5_000
        assert abs(shown.true_ms() - (NOW + 5_000)) <= 1
        assert shown.steady_ms() - begun_ms == 5_000
        assert abs(shown.true_of_steady_ms(begun_ms) - NOW) <= 1
        clock.boot_now_ms -= 5_000


def test_a_kernel_that_contradicts_the_cloud_is_not_believed(clock: SetClock, file: MemoryFile) -> None:
    synchronize(clock, NOW + DISPUTE_MS + 100)
    anchors = Anchors(file, clock)
    stamps = GatewayClock(clock, anchors)
    assert (stamps.state(), anchors.true_ms()) == (ClockState.SYNCHRONIZED, clock.wall_ms()), "nobody contradicts yet"
    anchors.note_cloud_time(NOW, 10)
    clock.boot_now_ms += LEAD_MS + 1
    anchors.look()
    assert stamps.state() is ClockState.RESTORED
    assert [anchor.origin for anchor in anchors.unkept()] == ["kernel", "cloud"]
    assert abs(anchors.true_ms() - (NOW + 5 + LEAD_MS + 1)) <= 1
    for _ in range(10):
        clock.boot_now_ms += 10_000
        anchors.look()
    assert len(anchors.unkept()) == 2, "they do not go to and fro"
    synchronize(clock, anchors.true_ms())
    assert (stamps.state(), anchors.is_synchronized()) == (ClockState.SYNCHRONIZED, True), "it was mended"


def test_stamps_say_what_the_kernel_says_of_a_clock_that_is_not_synchronized(clock: SetClock, file: MemoryFile) -> None:
    anchors = Anchors(file, clock)
    anchors.note_cloud_time(NOW, 10)
    stamps = GatewayClock(clock, anchors)
    assert stamps.state() is ClockState.UNSET
    clock.now_state = ClockState.RESTORED
    assert stamps.state() is ClockState.RESTORED
    assert (stamps.boot, stamps.wall_ms(), stamps.boot_ms()) == (clock.boot, clock.wall_ms(), clock.boot_ms())


def test_earlier_boots_stay_and_their_number_is_bounded(clock: SetClock, file: MemoryFile) -> None:
    for boot in range(ANCHORS_MAX + 10):
        clock.boot = boot
        Anchors(file, clock).note_cloud_time(NOW, 10)
    anchors = Anchors(file, clock)
    assert list(anchors.by_boot) == list(range(10, ANCHORS_MAX + 10))


def test_boots_that_the_cloud_has_go_first(clock: SetClock, file: MemoryFile) -> None:
    made = [Anchor(boot, 1, NOW, 5, "cloud") for boot in range(ANCHORS_MAX)]
    file.data = msgspec.json.encode({"version": 1, "anchors": made})
    clock.boot = 2**62
    anchors = Anchors(file, clock)
    anchors.kept([made[500]])
    anchors.note_probe(NOW, 10)
    assert set(range(ANCHORS_MAX)) - set(anchors.by_boot) == {500}


def run_for(clock: SetClock, anchors: Anchors, for_ms: int) -> None:
    """With a look every ten seconds, as the gateway's."""
    for _ in range(for_ms // 10_000):
        clock.boot_now_ms += 10_000
        anchors.look()


def test_boots_that_nobody_told_the_time_lie_between_those_that_know_it(clock: SetClock, file: MemoryFile) -> None:
    """The power flickers while the link is down: off for a minute, on for an hour, off for a minute, on for an hour."""
    true_ms = NOW
    anchors = Anchors(file, clock)
    anchors.note_cloud_time(true_ms, 10)
    run_for(clock, anchors, HOUR_MS)
    true_ms += HOUR_MS
    begun: dict[int, int] = {}
    for boot in (77, 5, 900):
        true_ms += 60_000
        clock.boot, clock.boot_now_ms, begun[boot] = boot, 0, true_ms
        anchors = Anchors(file, clock)
        if boot != 900:
            run_for(clock, anchors, HOUR_MS)
            true_ms += HOUR_MS
    assert len(anchors.unkept()) == 1, "nobody knows yet"
    anchors.note_cloud_time(true_ms, 10)
    assert {anchor.origin for anchor in anchors.unkept()} == {"cloud", "boots"}
    for boot in (77, 5):
        (anchor,) = anchors.by_boot[boot]
        off_ms = abs(true_time(anchor, 0)[0] - begun[boot])
        assert off_ms <= true_time(anchor, 0)[1] < 12 * 60_000, "they are noted every five minutes"
        assert clock.boot not in (77, 5)
    known = anchors.by_boot
    clock.boot, clock.boot_now_ms = 901, 0
    anchors = Anchors(file, clock)
    anchors.note_cloud_time(true_ms + HOUR_MS, 10)
    assert {boot: anchors.by_boot[boot] for boot in (77, 5)} == {boot: known[boot] for boot in (77, 5)}


def test_boots_before_any_that_knows_the_time_stay_undated(clock: SetClock, file: MemoryFile) -> None:
    run_for(clock, Anchors(file, clock), HOUR_MS)
    first, clock.boot, clock.boot_now_ms = clock.boot, 43, 0
    anchors = Anchors(file, clock)
    anchors.note_cloud_time(NOW, 10)
    assert first not in anchors.by_boot, "it may have been years ago"


def test_boots_between_two_that_contradict_stay_undated(clock: SetClock, file: MemoryFile) -> None:
    Anchors(file, clock).note_cloud_time(NOW, 10)
    clock.boot, clock.boot_now_ms = 43, 0
    run_for(clock, Anchors(file, clock), HOUR_MS)
    clock.boot, clock.boot_now_ms = 44, 0
    anchors = Anchors(file, clock)
    anchors.note_cloud_time(NOW, 10)
    assert sorted(anchors.by_boot) == [42, 44]


def test_anchors_of_a_long_boot_are_thinned(clock: SetClock, file: MemoryFile) -> None:
    anchors = Anchors(file, clock)
    first_ms = clock.boot_ms() + LEAD_MS
    for count in range(10 * BOOT_ANCHORS_MAX):
        anchors.note_cloud_time(NOW + count * (AGE_MAX_MS + 10), 10)
        clock.boot_now_ms += AGE_MAX_MS + 10
    begun = [anchor.boot_ms for anchor in anchors.by_boot[clock.boot]]
    assert BOOT_ANCHORS_MAX // 4 < len(begun) <= BOOT_ANCHORS_MAX
    assert begun == sorted(begun)
    assert begun[0] == first_ms
    assert clock.boot_ms() - begun[-1] < AGE_MAX_MS + 10


@pytest.mark.parametrize(
    "damaged",
    [b"", b"{", b'{"version":2,"anchors":[]}', b'{"version":1,"anchors":[[1,2]]}', b"\xff" * 40, b'{"anchors":[]}'],
)
def test_a_damaged_file_is_moved_aside_and_keeps_nobody_from_starting(
    clock: SetClock, tmp_path: Path, damaged: bytes
) -> None:
    (tmp_path / FILE).write_bytes(damaged)
    anchors = Anchors(FolderFile(tmp_path), clock)
    anchors.note_cloud_time(NOW, 10)
    assert Anchors(FolderFile(tmp_path), clock).unkept() == anchors.unkept()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["anchors.damaged", FILE]
    assert (tmp_path / "anchors.damaged").read_bytes() == damaged


def test_a_disk_that_fails_loses_no_anchor_to_the_cloud(clock: SetClock, file: MemoryFile) -> None:
    file.fails = True
    anchors = Anchors(file, clock)
    anchors.note_cloud_time(NOW, 10)
    assert len(anchors.unkept()) == 1, "durable is what the cloud has"
    file.fails = False
    anchors.look()
    assert Anchors(file, clock).unkept() == anchors.unkept(), "written once the disk works again"
    writes = file.writes
    anchors.look()
    assert file.writes == writes
