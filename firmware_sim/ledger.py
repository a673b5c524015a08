"""The ledger: what simulated devices sent and what was acknowledged to them, by (device, boot, seq).

A directory holds `devices.json` (each device's number here, its name on its network, its boot counter), `lock` (held
while a fleet runs) and `000001.ledger`, `000002.ledger`, …: entries of 16 bytes, little endian, in order of time.

    offset  size  field
    0       4     kind: 1 sent, 2 acknowledged, 3 dropped, 4 time, 5 malformed, 6 filed under
    4       4     the device's number
    8       4     boot
    12      4     seq
                  (kind 4: bytes 8 to 15 are the Unix time, ms, of the entries that follow; kind 6: a time given by a
                  device whose clock is wrong, which the cloud may have filed its message under)

Entries are written FLUSH_S after they were made at the latest: what a killed fleet leaves behind is complete but for
its last tenth of a second. Bytes after the last whole entry of a file are passed over.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import struct
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from protocols.times import DEVICE_TIME_AHEAD_MAX_MS, DEVICE_TIME_MIN_MS
from tidegate.console import UserError

Mark = tuple[int, int, int]
"""A message: the device's number, boot, seq."""

SENT: Final = 1
ACKNOWLEDGED: Final = 2
DROPPED: Final = 3
_TIME: Final = 4
MALFORMED: Final = 5
"""The payload is none that can be read: what is right for it is to be found among the rejects."""
_FILED: Final = 6

FLUSH_S: Final = 0.1
"""How long an entry may wait in memory: one write for all that many devices did in the meantime."""
FILE_BYTES_MAX: Final = 32 * 1024 * 1024
"""Two million entries; then the next file."""
FILES_MAX: Final = 16
"""A fleet that runs for weeks must not fill the disk: the oldest file goes, and `verify` starts at the next one."""
FILED_SLACK_MS: Final = 1_800_000
"""Device times that are at most so far from one noted before need no note of their own; `verify` asks for more than
this on both sides."""
SEQ_MAX: Final = 20_000_000
"""Above it an entry is taken for damage: a tally is an array by seq, and must not be made to fill the memory."""

_OF_MESSAGES: Final = (SENT, ACKNOWLEDGED, DROPPED, MALFORMED)
_ENTRY: Final = struct.Struct("<IIII")
_TIME_ENTRY: Final = struct.Struct("<IIQ")
_FILED_KNOWN_MAX: Final = 16
"""Clocks that are wrong in as many ways; beyond it, some times are noted twice."""
_SENDS_MAX: Final = 255
"""A tally counts sends in one byte: a message sent this often may have been sent more often."""


class LedgerDevice(msgspec.Struct):
    """A device as the ledger knows it; its place in `devices.json` is its number in the entries."""

    name: str
    """The alias on its network."""
    network: str
    alias_key: str
    keyed: bool
    """Its network names boot and seq as the message key: a resend must be stored once."""
    boot: int
    """The last boot counter that it used."""
    is_answered: bool = True
    """It learns what is on the gateway's disk. False: it sends with QoS 0, or is polled, and is promised nothing."""


class BootTally:
    """One boot of one device: arrays by seq."""

    __slots__ = ("acknowledged", "dropped", "malformed", "sends")

    def __init__(self) -> None:
        self.sends = bytearray()
        """How often the message was sent, or read by who polls its device."""
        self.acknowledged = bytearray()
        self.dropped = bytearray()
        self.malformed = bytearray()

    def __len__(self) -> int:
        """The seq after the highest known."""
        return len(self.sends)

    def add(self, kind: int, seq: int) -> None:
        if seq >= len(self.sends):
            more = bytes(seq + 1 - len(self.sends))
            self.sends += more
            self.acknowledged += more
            self.dropped += more
            self.malformed += more
        if kind == SENT:
            self.sends[seq] = min(self.sends[seq] + 1, _SENDS_MAX)
        elif kind == ACKNOWLEDGED:
            self.acknowledged[seq] = 1
        elif kind == MALFORMED:
            self.malformed[seq] = 1
        else:
            self.dropped[seq] = 1

    def may_have_rows(self, seq: int, rows: int) -> bool:
        """False if more rows are stored than it was sent. A message whose sending the ledger no longer holds, or
        stopped counting, is given the benefit of the doubt."""
        return rows <= self.sends[seq] or self.sends[seq] in (0, _SENDS_MAX)


class Tallies(msgspec.Struct):
    """A ledger, read."""

    devices: list[LedgerDevice]
    boots: dict[tuple[int, int], BootTally]
    """By (the device's number, boot)."""
    first_ms: int
    last_ms: int
    """Of the times that messages may be filed under: those of the run, and of devices' clocks that were wrong."""

    def of_device(self, number: int) -> dict[int, BootTally]:
        return {boot: tally for (device, boot), tally in self.boots.items() if device == number}


class LedgerWriter:
    """The one writer of a ledger. Not thread-safe; calls of `sent` and its like only append to memory."""

    def __init__(self, directory: Path, *, wall_ms: Callable[[], int]) -> None:
        """Raises UserError if another fleet writes here."""
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._wall_ms = wall_ms
        self._lock: int | None = _lock(directory)
        self._devices = read_devices(directory)
        self._pending = bytearray()
        self._filed_ms: list[int] = []
        files = _files(directory)
        self._number = int(files[-1].stem) if files else 0
        self._written = FILE_BYTES_MAX
        self._file: int | None = None

    def enroll(self, devices: Sequence[LedgerDevice]) -> list[int]:
        """The devices' numbers. A known one keeps its number and its boot counter, which is taken over into what is
        given; a new one starts with the counter given."""
        known = {(device.network, device.alias_key, device.name): at for at, device in enumerate(self._devices)}
        numbers: list[int] = []
        for device in devices:
            at = known.get((device.network, device.alias_key, device.name))
            if at is None:
                at = len(self._devices)
                self._devices.append(device)
            else:
                device.boot = self._devices[at].boot
                self._devices[at] = device
            numbers.append(at)
        return numbers

    def count_boots(self, numbers: Sequence[int]) -> None:
        """Raises the boot counters of these devices, and keeps them before any of the new boots is used."""
        for number in numbers:
            self._devices[number].boot += 1
        _replace(self.directory / "devices.json", msgspec.json.encode(self._devices))

    def start_over(self) -> None:
        """Forgets all messages so far, and no boot counter: the proof is to be of what comes."""
        for old in _files(self.directory):
            old.unlink()

    def boot(self, number: int) -> int:
        return self._devices[number].boot

    def sent(self, device: int, boot: int, seq: int) -> None:
        self._pending += _ENTRY.pack(SENT, device, boot, seq)

    def acknowledged(self, device: int, boot: int, seq: int) -> None:
        self._pending += _ENTRY.pack(ACKNOWLEDGED, device, boot, seq)

    def dropped(self, device: int, boot: int, seq: int) -> None:
        self._pending += _ENTRY.pack(DROPPED, device, boot, seq)

    def malformed(self, device: int, boot: int, seq: int) -> None:
        """To be said before it is sent."""
        self._pending += _ENTRY.pack(MALFORMED, device, boot, seq)

    def may_be_filed_under(self, time_ms: int) -> None:
        """By a device whose clock is wrong. Times that no message is ever filed under are not noted."""
        if not DEVICE_TIME_MIN_MS <= time_ms <= self._wall_ms() + DEVICE_TIME_AHEAD_MAX_MS:
            return
        if all(abs(time_ms - known_ms) > FILED_SLACK_MS for known_ms in (*self._filed_ms, self._wall_ms())):
            # The newest are enough: a clock moves on from where it was.
            self._filed_ms = [*self._filed_ms[-_FILED_KNOWN_MAX:], time_ms]
            self._pending += _TIME_ENTRY.pack(_FILED, 0, time_ms)

    def flush(self) -> None:
        """Writes what waits; to be called every FLUSH_S."""
        if not self._pending:
            return
        if self._written >= FILE_BYTES_MAX:
            self._next_file()
        assert self._file is not None
        data = memoryview(_TIME_ENTRY.pack(_TIME, 0, self._wall_ms()) + self._pending)
        self._written += len(data)
        while data:
            data = data[os.write(self._file, data) :]
        self._pending.clear()

    def close(self) -> None:
        """Once more does nothing."""
        if self._lock is None:
            return
        self.flush()
        if self._file is not None:
            os.close(self._file)
            self._file = None
        os.close(self._lock)
        self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _next_file(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._number += 1
        path = self.directory / f"{self._number:06d}.ledger"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        self._written = 0
        for old in _files(self.directory)[:-FILES_MAX]:
            old.unlink()


def read_ledger(directory: Path) -> Tallies:
    """All of the ledger up to now; a fleet may go on writing. Raises UserError where there is none."""
    devices = read_devices(directory)
    files = _files(directory)
    if not devices or not files:
        raise UserError(f"no ledger in {directory}", "let devices send first: tidegate-sim fleet --ledger DIRECTORY")
    boots: dict[tuple[int, int], BootTally] = {}
    times_ms: list[int] = []
    for kind, device, boot, seq in _all_entries(files):
        if kind in (_TIME, _FILED):
            time_ms = seq << 32 | boot
            times_ms = [min(time_ms, *times_ms), max(time_ms, *times_ms)] if times_ms else [time_ms, time_ms]
        elif kind in _OF_MESSAGES and device < len(devices) and seq <= SEQ_MAX:
            tally = boots.get((device, boot))
            if tally is None:
                tally = boots[device, boot] = BootTally()
            tally.add(kind, seq)
    return Tallies(devices, boots, *(times_ms or (0, 0)))


def acknowledged_ms(directory: Path, wanted: Mapping[tuple[int, int], Container[int]]) -> dict[Mark, int]:
    """When each message of `wanted` (seqs by device's number and boot) was acknowledged, Unix ms, within FLUSH_S; those
    that never were are left out."""
    found: dict[Mark, int] = {}
    now_ms = 0
    for kind, device, boot, seq in _all_entries(_files(directory)):
        if kind == _TIME:
            now_ms = seq << 32 | boot
        elif kind == ACKNOWLEDGED and seq in wanted.get((device, boot), ()):
            found[device, boot, seq] = now_ms
    return found


def read_devices(directory: Path) -> list[LedgerDevice]:
    path = directory / "devices.json"
    if not path.exists():
        return []
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[LedgerDevice])
    except msgspec.MsgspecError as error:
        raise UserError(
            f"{path} is damaged: {error}", f"move {directory} away; the next fleet starts a new one"
        ) from None


def is_being_written(directory: Path) -> bool:
    """True while a fleet holds the ledger."""
    if not directory.is_dir():
        return False
    try:
        os.close(_lock(directory))
    except UserError:
        return True
    return False


def _all_entries(files: Iterable[Path]) -> Iterator[tuple[int, int, int, int]]:
    return itertools.chain.from_iterable(map(_entries, files))


def _entries(path: Path) -> Iterator[tuple[int, int, int, int]]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return iter(())  # the oldest one, which the fleet has just taken away
    return _ENTRY.iter_unpack(memoryview(data)[: len(data) // _ENTRY.size * _ENTRY.size])


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.glob("*.ledger") if path.stem.isdecimal())


def _lock(directory: Path) -> int:
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise UserError(
            f"another fleet writes the ledger in {directory}", "stop it, or name another directory with --ledger"
        ) from None
    return lock


def _replace(path: Path, data: bytes) -> None:
    """The file with its new content or its old one, whenever this process is killed."""
    aside = path.with_suffix(".new")
    aside.write_bytes(data)
    aside.replace(path)
