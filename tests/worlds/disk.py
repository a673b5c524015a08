"""A gateway's disk: the log's simulated disk, and what else may happen to one. It tells of synced blocks."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from protocols.block import HEAD_BYTES, MAGIC, BlockHead, check_block, read_head
from protocols.errors import WireError
from sync.log.segment import MAGIC as SEGMENT_MAGIC
from sync.log.segment import header_size
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

    def write(self, path: Path, data: bytes, offset: int) -> None:
        if self.write_trouble and self.random.random() < self.write_trouble:
            kind = "segment" if path.suffix == ".seg" else "state"
            self.fail_writes(self.random.choice((errno.EIO, errno.ENOSPC)), to=kind)  # type: ignore[arg-type]
        try:
            super().write(path, data, offset)
        except OSError:
            self._tell(path, data, synced=False)
            raise
        self._tell(path, data, synced=True)

    def _tell(self, path: Path, data: bytes, *, synced: bool) -> None:
        if path.suffix != ".seg":
            return
        at = header_size(data) if data[:4] == SEGMENT_MAGIC else 0
        while len(data) - at >= HEAD_BYTES:
            head = read_head(data, at)
            self._on_block(Held(data[at : at + head.size], head, synced, path.name))
            at += head.size

    def stay_on(self) -> None:
        """No power cut comes any more."""
        self._operations_left = None

    def holds(self, place: tuple[int, int]) -> bool:
        """Whether a record stands in a whole block somewhere."""
        epoch, seq = place
        return any(head.epoch == epoch and head.first_seq <= seq < head.end_seq for _, _, head in self.blocks())

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
            at = content.find(MAGIC)
            while at >= 0:
                head = _whole(content, at)
                if head is not None:
                    found.append((path, at, head))
                at = content.find(MAGIC, at + (head.size if head else 1))
        return found


def _whole(content: bytes, at: int) -> BlockHead | None:
    try:
        head = read_head(content, at)
        check_block(content[at : at + head.size])
    except WireError:
        return None
    return head
