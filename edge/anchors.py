"""What this machine's boot clocks were in true time: durable anchors, and the rules by which they are made.

`anchors.json` in the data folder holds them, oldest first; it is written whole or not at all. The cloud keeps them too,
and has them before the records that they date.

An anchor is made where nothing dates the boot yet, or what does has become too old or turned out wrong. What tells the
time is the kernel, while some service keeps its clock, else the link's cloud. The cloud is believed rather than a
kernel that contradicts it by more than a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

import msgspec

from edge.boots import SEEN_EVERY_MS, Boot, anchors_between
from edge.data_folder import write_whole
from edge.listeners.clock import ClockSource
from protocols.errors import UNREADABLE
from protocols.messages import Anchor, Clock, ClockState
from protocols.times import anchor_at, true_time
from tidegate.logs import get_logger

FILE: Final = "anchors.json"
VERSION: Final = 1

LOOK_S: Final = 10.0
"""From one look at the kernel to the next: it says nothing when it has learned the time."""

AGE_MAX_MS: Final = 6 * 3600 * 1000
"""Then another anchor is made: the drift of six hours is 2 s."""

OFF_MS: Final = 1_000
"""An anchor that is off by more than this beyond its bound gets a successor: the machine was suspended, or whoever told
the time was wrong. Less is not worth that shipping waits until the cloud has it."""

DISPUTE_MS: Final = 60_000
"""A kernel whose clock differs from the cloud's by more than this is not believed, whatever it says of itself."""

LEAD_MS: Final = 100
"""An anchor begins so much after the moment in which it is made, so that it dates nothing that was sent before: the
boot clock of a record may seem up to 50 ms later than it was (CLOCK_STEP_MS)."""

RESOLUTION_MS: Final = 2
"""Two clocks of whole milliseconds, read one after the other."""

BOOT_ANCHORS_MAX: Final = 64
"""Of one boot: 16 days of one every six hours. Beyond it every other one goes, never the first or the last."""

ANCHORS_MAX: Final = 1_024
"""Of all boots, 60 kB: a log that holds records of more boots than this has waited for the cloud for years. Beyond it
boots whose anchors the cloud has go first, then the oldest."""

_log = get_logger("edge.anchors")


class AnchorFile(Protocol):
    """Where they are kept. Both methods may raise OSError."""

    def read(self) -> bytes | None:
        """None if there is nothing yet."""
        ...

    def write(self, data: bytes) -> None:
        """Whole or not at all, also through a power cut; durable when it returns."""
        ...

    def set_aside(self) -> None:
        """What is there is damaged: it is kept for people to look at, and is not read again."""
        ...


class FolderFile:
    """In the data folder."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE

    def read(self) -> bytes | None:
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return None

    def write(self, data: bytes) -> None:
        write_whole(self._path, data)

    def set_aside(self) -> None:
        self._path.replace(self._path.with_suffix(".damaged"))


class _Content(msgspec.Struct, frozen=True):
    version: int
    anchors: list[Anchor] = []
    boots: list[Boot] = []
    """Oldest first."""


class Anchors:
    """Of all boots that may still have records in the log. Nothing here waits, but for the disk when an anchor is made,
    which is rare: so no record is stamped or sent between the moment that an anchor names and its being known here."""

    def __init__(self, file: AnchorFile, clock: ClockSource) -> None:
        """Raises nothing: a file that is damaged or cannot be read keeps no gateway from its work."""
        self._file = file
        self._clock = clock
        self._boots: dict[int, list[Anchor]] = {}  # oldest first
        self._seen_ms: dict[int, int] = {}  # of all boots, oldest first: how long each lasted, at least
        self._kept: set[Anchor] = set()
        self._unkept: tuple[Anchor, ...] = ()
        self._is_durable = True
        self._is_disputed = False
        content = _load(file)
        for anchor in content.anchors:
            self._boots.setdefault(anchor.boot, []).append(anchor)
        for boot in self._boots.values():
            boot.sort(key=lambda anchor: anchor.boot_ms)
        self._seen_ms |= {boot.boot: boot.seen_ms for boot in content.boots}
        self._sort_out()
        self._cloud = next((one for one in reversed(self._here()) if one.origin == "cloud"), None)
        self.look()

    @property
    def by_boot(self) -> Mapping[int, Sequence[Anchor]]:
        """For sync.resolve.Resolver."""
        return self._boots

    @property
    def newest(self) -> Anchor | None:
        """Of this boot."""
        here = self._here()
        return here[-1] if here else None

    def unkept(self) -> tuple[Anchor, ...]:
        """Those that the cloud is not known to have. Asked often."""
        return self._unkept

    def kept(self, anchors: Iterable[Anchor]) -> None:
        """They are durable in the cloud."""
        self._kept.update(anchors)
        self._sort_out()

    def note_cloud_time(self, server_time_ms: int, round_trip_ms: int) -> None:
        """At each WELCOME, before the first block is shipped: the cloud's clock as it was sent, and how long ago the
        question was, at most. This cloud may be another than the one before (it was restored from a backup, say), so
        from now on it is not known to have anything."""
        self._kept.clear()
        self._sort_out()
        self.note_probe(server_time_ms, round_trip_ms)

    def note_probe(self, server_time_ms: int, round_trip_ms: int) -> None:
        """While a connection stands: as note_cloud_time, of the same cloud."""
        way_ms = max(round_trip_ms, 0) / 2
        self._cloud = self._anchor(server_time_ms + round(way_ms), round(way_ms), "cloud")
        self.look()

    async def run(self) -> None:
        """Looks every now and then, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.look()

    def look(self) -> None:
        """Makes an anchor where one is due."""
        if self.is_synchronized():
            clock = self._clock
            self._consider(self._anchor(clock.wall_ms(), clock.error_ms(), "kernel"))
        elif self._cloud is not None:
            self._consider(self._cloud)
        ran_ms = self._clock.boot_ms()
        noted_ms = self._seen_ms.get(self._clock.boot)
        if not self._is_durable or noted_ms is None or ran_ms - noted_ms >= SEEN_EVERY_MS:
            self._write()

    def is_synchronized(self) -> bool:
        """Whether the wall clock is true: the kernel says so, and the cloud does not contradict."""
        if self._clock.state() is not ClockState.SYNCHRONIZED:
            return False
        if self._cloud is None:
            return True
        time_ms, error_ms = true_time(self._cloud, self._clock.boot_ms())
        ahead_ms = time_ms - self._clock.wall_ms()
        was_disputed, self._is_disputed = self._is_disputed, abs(ahead_ms) > error_ms + DISPUTE_MS
        if self._is_disputed and not was_disputed:
            _log.warning("the kernel says that the clock is synchronized, the cloud does not", cloud_ahead_ms=ahead_ms)
        return not self._is_disputed

    def true_received_ms(self, clock: Clock, received_ms: int) -> int:
        """True time of what a clock of this machine stamped, as far as it is known by now."""
        anchors = self._boots.get(clock.boot)
        if clock.state is ClockState.SYNCHRONIZED or not anchors:
            return received_ms
        boot_ms = received_ms - clock.offset_ms
        return true_time(anchor_at(anchors, boot_ms), boot_ms)[0]

    @property
    def is_disputed(self) -> bool:
        """The kernel says that its clock is synchronized, and the cloud contradicts."""
        return self._is_disputed

    def true_ms(self) -> int:
        """Unix milliseconds, as true as is known here, which no step of the wall clock moves once anything dates the
        boot: for whatever expires. The cloud's clock counts where it differs: its deadlines are meant by it."""
        told = self._told()
        return self._clock.wall_ms() if told is None else told[0]

    def true_error_ms(self) -> int | None:
        """true_ms is right within ± so much; None: nobody knows."""
        told = self._told()
        if told is not None:
            return told[1]
        return self._clock.error_ms() if self.is_synchronized() else None

    def _told(self) -> tuple[int, int] | None:
        """True time and its error bound, where the wall clock does not show it; None: it does, or nobody knows."""
        dated = self._cloud or self.newest
        if dated is None:
            return None
        time_ms, error_ms = true_time(dated, self._clock.boot_ms())
        if self.is_synchronized() and (
            self._cloud is None or abs(time_ms - self._clock.wall_ms()) <= error_ms + OFF_MS
        ):
            return None
        return time_ms, error_ms

    def _here(self) -> list[Anchor]:
        return self._boots.get(self._clock.boot, [])

    def _anchor(self, wall_ms: int, error_ms: int, origin: str) -> Anchor:
        return Anchor(self._clock.boot, self._clock.boot_ms(), wall_ms, error_ms + RESOLUTION_MS, origin)

    def _consider(self, told: Anchor) -> None:
        """Makes it an anchor if the boot needs one."""
        newest = self.newest
        begins_ms = self._clock.boot_ms() + LEAD_MS
        wall_ms, error_ms = true_time(told, begins_ms)
        if newest is not None:
            if begins_ms <= newest.boot_ms:
                return  # only just made; or a machine put back to an earlier moment, which reaches it in time
            dated_ms, bound_ms = true_time(newest, begins_ms)
            is_off = abs(wall_ms - dated_ms) > bound_ms + error_ms + OFF_MS
            is_old = begins_ms - newest.boot_ms > AGE_MAX_MS
            if not is_off and not (is_old and 2 * error_ms < bound_ms):  # what was told long ago is as old itself
                return
        anchor = Anchor(told.boot, begins_ms, wall_ms, error_ms, told.origin)
        if newest is None:
            self._date_boots_before(anchor)
        self._boots.setdefault(anchor.boot, []).append(anchor)
        self._bound()
        self._write()
        _log.info("clock anchored", wall_ms=wall_ms, boot_ms=begins_ms, error_ms=error_ms, origin=anchor.origin)

    def _date_boots_before(self, first: Anchor) -> None:
        """`first`: the first anchor of this boot. No record of those before was sent: no connection stood in them."""
        undated: list[Boot] = []
        for boot, seen_ms in reversed(self._seen_ms.items()):
            anchors = self._boots.get(boot)
            if anchors:
                dated = anchors_between(anchor_at(anchors, seen_ms), seen_ms, undated[::-1], first)
                self._boots |= {anchor.boot: [anchor] for anchor in dated}
                return
            if boot != first.boot:
                undated.append(Boot(boot, seen_ms))

    def _bound(self) -> None:
        here = self._here()
        if len(here) > BOOT_ANCHORS_MAX:
            here[1:-1] = here[2:-1:2]
        while sum(map(len, self._boots.values())) > ANCHORS_MAX:
            others = [boot for boot in self._boots if boot != self._clock.boot]
            gone = next((boot for boot in others if self._kept.issuperset(self._boots[boot])), others[0])
            if not self._kept.issuperset(self._boots[gone]):
                _log.warning("too many boots: one is forgotten before the cloud knows of it", boot=gone)
            del self._boots[gone]
            self._seen_ms.pop(gone, None)  # or it would be dated anew
        self._sort_out()

    def _sort_out(self) -> None:
        all_of_them = [anchor for boot in self._boots.values() for anchor in boot]
        self._kept.intersection_update(all_of_them)
        self._unkept = tuple(anchor for anchor in all_of_them if anchor not in self._kept)

    def _write(self) -> None:
        """An anchor that the disk does not take counts all the same: it is durable once the cloud has it, and nothing
        that it dates is sent before. It is written when the disk works again."""
        self._seen_ms[self._clock.boot] = self._clock.boot_ms()
        while len(self._seen_ms) > ANCHORS_MAX:
            del self._seen_ms[next(iter(self._seen_ms))]
        anchors = [anchor for boot in self._boots.values() for anchor in boot]
        boots = [Boot(boot, seen_ms) for boot, seen_ms in self._seen_ms.items()]
        try:
            self._file.write(msgspec.json.encode(_Content(VERSION, anchors, boots)))
        except OSError as error:
            if self._is_durable:
                _log.warning("clock anchors cannot be written", reason=str(error))
            self._is_durable = False
        else:
            self._is_durable = True


def _load(file: AnchorFile) -> _Content:
    try:
        data = file.read()
        if data is None:
            return _Content(VERSION)
        content = msgspec.json.decode(data, type=_Content)
        if content.version == VERSION:
            return content
        reason = f"version {content.version}; this gateway reads {VERSION}"
    except UNREADABLE as error:
        reason = str(error)
    except OSError as error:
        _log.warning("clock anchors cannot be read", reason=str(error))
        return _Content(VERSION)
    _log.warning("clock anchors are damaged and set aside", reason=reason)
    with contextlib.suppress(OSError):
        file.set_aside()
    return _Content(VERSION)
