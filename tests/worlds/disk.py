"""A gateway's disk: the log's simulated disk, and what else may happen to one. It tells of synced blocks."""

from __future__ import annotations

import errno
import functools
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from protocols.block import MAGIC, BlockHead, check_block, read_head
from protocols.errors import WireError
from sync.log.recovery import read_state
from sync.log.segment import MAGIC as SEGMENT_MAGIC
from sync.log.segment import header_size
from sync.log.state import State, state_names
from tests.sync.log.simulated_disk import SimulatedDisk

FOLDER: Final = Path("/site/log")


class Held(msgspec.Struct, frozen=True):
    """A block that was written, and whether the write returned well."""

    data: bytes
    head: BlockHead
    synced: bool
    segment: str
    """The file's name."""


class WorldDisk(SimulatedDisk):
    """`on_block` is told of each block that is written to a segment. Fails by itself as long as `troubles` say so."""

    def __init__(self, seed: int, rng: random.Random, on_block: Callable[[Held], None]) -> None:
        super().__init__(seed)
        self.random = rng
        self.slow_s = 0.0
        """Added to what each call takes."""
        self.write_trouble = 0.0
        """Share of writes that fail."""
        self.full = False
        """True: nothing can be made."""
        self.on_power_cut: Callable[[], None] = lambda: None
        """Told in the middle of the change in which it goes."""
        self.is_killed = False
        """While True, what is written stands in the system's memory alone."""
        self._volatile: list[tuple[Path, int, bytes]] = []
        """Where, and what the disk has there."""
        self.on_remove: Callable[[list[BlockHead], State | None], None] = lambda heads, state: None
        """Told of the whole blocks of each segment that is to go, and what the log's state says then."""
        self._on_block = on_block

    def call_s(self) -> float:
        """How long a call takes."""
        return self.random.random() * (0.002 + self.slow_s)

    def _operation(self) -> bool:
        powered = super()._operation()
        if not powered:
            self.on_power_cut()
        return powered

    def create(self, path: Path, size_bytes: int) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "no space left on device", str(path))
        super().create(path, size_bytes)

    def remove(self, paths: Sequence[Path]) -> None:
        for path in paths:
            heads = [head for _, head in _blocks(bytes(self.files.get(path, b"")), 0)] if path.suffix == ".seg" else []
            if heads:
                _, state = read_state(functools.partial(self._raw, FOLDER / name) for name in state_names())
                self.on_remove(heads, state)
        super().remove(paths)

    def _raw(self, path: Path, offset: int, length: int) -> bytes:
        return bytes(self.files.get(path, b"")[offset : offset + length])

    def write(self, path: Path, data: bytes, offset: int) -> None:
        if self.write_trouble and self.random.random() < self.write_trouble:
            kind = "segment" if path.suffix == ".seg" else "state"
            self.fail_writes(self.random.choice((errno.EIO, errno.ENOSPC)), to=kind)  # type: ignore[arg-type]
        before = bytes(self.files.get(path, b"")[offset : offset + len(data)])
        try:
            super().write(path, data, offset)
        except OSError:
            self._tell(path, data, synced=False)
            raise
        if self.is_killed:
            self._volatile.append((path, offset, before))
        else:
            end = offset + len(data)
            self._volatile = [
                each
                for each in self._volatile
                if each[0] != path or not offset <= each[1] <= each[1] + len(each[2]) <= end
            ]
        self._tell(path, data, synced=not self.is_killed)

    def lose_memory(self) -> None:
        """Power goes: of what only the system's memory holds, some is gone."""
        for path, offset, before in reversed(self._volatile):
            if path in self.files and self.random.random() < 0.5:
                self.files[path][offset : offset + len(before)] = before
        self._volatile.clear()

    def _tell(self, path: Path, data: bytes, *, synced: bool) -> None:
        if path.suffix != ".seg":
            return
        for at, head in _blocks(data, header_size(data) if data[:4] == SEGMENT_MAGIC else 0):
            self._on_block(Held(data[at : at + head.size], head, synced, path.name))

    def stay_on(self) -> None:
        """No power cut comes any more."""
        self._operations_left = None

    def image(self) -> dict[Path, bytes]:
        """A copy of all of it, as of an idle disk."""
        return {path: bytes(content) for path, content in self.files.items()}

    def restore(self, image: dict[Path, bytes]) -> None:
        """The copy is put back."""
        self.files = {path: bytearray(content) for path, content in image.items()}

    def blocks(self) -> list[tuple[Path, int, BlockHead]]:
        """Every whole block in a segment, wherever it stands."""
        found: list[tuple[Path, int, BlockHead]] = []
        for path in self.segments():
            content = bytes(self.files[path])
            found += [(path, at, head) for at, head in _blocks(content, 0)]
        return found


def _blocks(content: bytes, start: int) -> Iterator[tuple[int, BlockHead]]:
    """The whole ones, in order, with what is damaged between them passed over."""
    at = content.find(MAGIC, start)
    while at >= 0:
        head = _whole(content, at)
        if head is not None:
            yield at, head
        at = content.find(MAGIC, at + (head.size if head is not None else 1))


def _whole(content: bytes, at: int) -> BlockHead | None:
    try:
        head = read_head(content, at)
        check_block(content[at : at + head.size])
    except WireError:
        return None
    return head
