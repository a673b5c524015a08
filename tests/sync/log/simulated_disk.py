"""A disk in memory that keeps the promises of sync.log.disk.Disk and breaks everything else."""

from __future__ import annotations

import asyncio
import errno
import random
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

SECTOR_BYTES = 512


class SimulatedDisk:
    """Deterministic for a seed and an order of calls.

    A write that crashes or fails leaves nothing, all, a prefix or any sectors of what it wrote. A removal that crashes
    is done for some files. What returned is durable.
    """

    def __init__(self, seed: int = 0, *, capacity_bytes: int | None = None) -> None:
        self.files: dict[Path, bytearray] = {}
        self.capacity_bytes = capacity_bytes
        self.largest_bytes = 0
        """The most that all files ever took together."""
        self.bytes_read = 0
        self.bad_sectors: set[tuple[Path, int]] = set()
        """Reading from these (path, number of the sector) fails."""
        self.removed: dict[Path, bytearray] = {}
        """Files that were removed, as they were."""
        self.unreadable = False
        """True: no read succeeds."""
        self._gate: Gate | None = None
        self._held: dict[str, Gate] = {}
        self._random = random.Random(seed)
        self._mutex = threading.Lock()
        self._locked: set[Path] = set()
        self._operations_left: int | None = None
        self._off = False
        self._write_errors: dict[str, list[int]] = {"segment": [], "state": [], "reserve": []}
        self._create_errors: list[int] = []
        self._is_killing = False
        self._in_memory: list[tuple[Path, int, bytes]] = []
        """What a killed process wrote and nobody synced: path, offset, and what the medium has there."""
        self.deaf: set[Path] = set()
        """Files that cannot be read at the moment."""

    # What tests do to it

    def cut_power_after(self, operations: int) -> None:
        """The change after that many more is torn, and everything fails from then on."""
        self._operations_left = operations

    def restart(self) -> None:
        """Power comes back, to a process that knows nothing."""
        self._off = False
        self._operations_left = None
        for errors in self._write_errors.values():
            errors.clear()
        self._create_errors.clear()
        self._locked.clear()

    def kill_in_write(self) -> None:
        """The process is killed in its next write to a segment, which is whole then, in the system's memory only."""
        self._is_killing = True

    def fail_power(self) -> None:
        """Whatever is only in memory is gone."""
        for path, offset, before in reversed(self._in_memory):
            if path in self.files:
                self.files[path][offset : offset + len(before)] = before
        self._in_memory.clear()
        self._off = True

    def hold_writes(self) -> Gate:
        """The next write to a segment waits at the gate until it is opened."""
        self._gate = Gate()
        return self._gate

    def fail_writes(self, *numbers: int, to: Literal["segment", "state", "reserve"] = "segment") -> None:
        """The next writes fail with these errno's, one each, leaving torn bytes."""
        self._write_errors[to].extend(numbers)

    def fail_creates(self, *numbers: int) -> None:
        self._create_errors.extend(numbers)

    def hold_keeper(self, call: Literal["read", "remove"]) -> Gate:
        """The log's keeper waits at the gate when it next reads, or before it removes segments."""
        gate = Gate()
        self._held[call] = gate
        return gate

    def flip(self, path: Path, offset: int) -> None:
        """One bit rots."""
        self.files[path][offset] ^= 0x10

    def segments(self) -> list[Path]:
        return sorted(path for path in self.files if path.suffix == ".seg")

    @property
    def is_off(self) -> bool:
        """Whether power is cut."""
        return self._off

    @property
    def used_bytes(self) -> int:
        return sum(map(len, self.files.values()))

    # What the log does with it

    def lock(self, path: Path) -> SimulatedLock:
        with self._mutex:
            self._check_power()
            if path in self._locked:
                raise BlockingIOError(errno.EWOULDBLOCK, "locked", str(path))
            self._locked.add(path)
            return SimulatedLock(lambda: self._locked.discard(path))

    def sizes(self, directory: Path) -> dict[str, int]:
        with self._mutex:
            self._check_power()
            return {path.name: len(content) for path, content in self.files.items() if path.parent == directory}

    def create(self, path: Path, size_bytes: int) -> None:
        with self._mutex:
            if path in self.files:
                raise FileExistsError(errno.EEXIST, "exists", str(path))
            if self._create_errors and (number := self._create_errors.pop(0)):
                raise OSError(number, "simulated", str(path))
            if self.capacity_bytes is not None and self.used_bytes + size_bytes > self.capacity_bytes:
                raise OSError(errno.ENOSPC, "no space left on device", str(path))
            if not self._operation() and self._random.random() < 0.5:
                raise OSError(errno.EIO, "power is off", str(path))
            self.files[path] = bytearray(size_bytes)
            self.largest_bytes = max(self.largest_bytes, self.used_bytes)
            self._check_power()

    def open(self, path: Path) -> SimulatedFile:
        with self._mutex:
            self._check_power()
            self._check_there(path)
            return SimulatedFile(self, path)

    def read(self, path: Path, offset: int, length: int) -> bytes:
        self._wait("read")
        with self._mutex:
            self._check_power()
            self._check_there(path)
            if self.unreadable or path in self.deaf:
                raise OSError(errno.EIO, "unreadable disk", str(path))
            sectors = range(offset // SECTOR_BYTES, -(-(offset + length) // SECTOR_BYTES))
            if self.bad_sectors and any((path, sector) in self.bad_sectors for sector in sectors):
                raise OSError(errno.EIO, "unreadable sector", str(path))
            self.bytes_read += length
            return bytes(self.files[path][offset : offset + length])

    def truncate(self, path: Path, size_bytes: int) -> None:
        with self._mutex:
            self._check_there(path)
            if self._operation() or self._random.random() < 0.5:
                del self.files[path][size_bytes:]
            self._check_power()

    def rename(self, source: Path, target: Path) -> None:
        with self._mutex:
            self._check_power()
            self._check_there(source)
            powered = self._operation()
            if powered or self._random.random() < 0.5:
                self.files[target] = self.files.pop(source)
            self._check_power()

    def remove(self, paths: Sequence[Path]) -> None:
        if any(path.suffix == ".seg" for path in paths):
            self._wait("remove")
        with self._mutex:
            powered = self._operation()
            for path in paths:
                if path in self.files and (powered or self._random.random() < 0.5):
                    self.removed[path] = self.files.pop(path)
            self._check_power()

    def write(self, path: Path, data: bytes, offset: int) -> None:
        """What an open file's `write` comes to."""
        if self._gate is not None and path.suffix == ".seg":
            gate, self._gate = self._gate, None
            gate.reached.set()
            gate.passed.wait()
        with self._mutex:
            powered = self._operation()
            errors = self._write_errors["segment" if path.suffix == ".seg" else path.stem]
            number = errors.pop(0) if errors else 0
            content = self.files.get(path, bytearray())  # a removed file can still be written to
            if self._is_killing and path.suffix == ".seg":
                self._is_killing, self._off = False, True
                self._in_memory.append((path, offset, bytes(content[offset : offset + len(data)])))
                content[offset : offset + len(data)] = data
                raise OSError(errno.EIO, "killed", str(path))
            for first, end in self._written(len(data), whole=powered and not number):
                content[offset + first : offset + end] = data[first:end]
            self._check_power()
            if number:
                raise OSError(number, "simulated", str(path))
            self._in_memory = [
                held for held in self._in_memory if held[0] != path or not offset <= held[1] < offset + len(data)
            ]

    def _wait(self, call: str) -> None:
        if call in self._held and threading.current_thread().name.startswith("log-keeper"):
            gate = self._held.pop(call)
            gate.reached.set()
            gate.passed.wait()

    def _written(self, size: int, *, whole: bool) -> list[tuple[int, int]]:
        """Which parts of a write reach the medium."""
        kind = 0 if whole else self._random.randrange(4)
        if kind == 0:
            return [(0, size)]
        if kind == 1:
            return []
        if kind == 2:
            return [(0, self._random.randrange(size))]
        starts = range(0, size, SECTOR_BYTES)
        return [(at, min(at + SECTOR_BYTES, size)) for at in starts if self._random.random() < 0.5]

    def _operation(self) -> bool:
        """Counts a change; False if it is the one in which power goes."""
        self._check_power()
        if self._operations_left is None:
            return True
        self._operations_left -= 1
        self._off = self._operations_left < 0
        return not self._off

    def _check_there(self, path: Path) -> None:
        if path not in self.files:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))

    def _check_power(self) -> None:
        if self._off:
            raise OSError(errno.EIO, "power is off")


class Gate:
    def __init__(self) -> None:
        self.reached = threading.Event()
        self.passed = threading.Event()

    async def wait(self) -> None:
        """Until a write has come to the gate."""
        await asyncio.to_thread(self.reached.wait)

    def open(self) -> None:
        self.passed.set()


class SimulatedFile:
    def __init__(self, disk: SimulatedDisk, path: Path) -> None:
        self._disk = disk
        self._path = path

    def write(self, parts: Sequence[bytes], offset: int) -> None:
        self._disk.write(self._path, b"".join(parts), offset)

    def close(self) -> None:
        pass


class SimulatedLock:
    def __init__(self, release: Callable[[], None]) -> None:
        self.close = release
