"""What is fuzzed: a parser, or a listener of a gateway that runs."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import msgspec

TAKEN: Final = "taken"
"""What becomes of an input that is what it claims to be."""

SHORT_BYTES: Final = 200
"""An input so short is cut at each of its bytes now and then."""


class Stretch(NamedTuple):
    """An input that can be made as long as is wanted: the unit stands in it again and again."""

    head: bytes
    unit: bytes
    tail: bytes = b""

    def of(self, size: int) -> bytes:
        """About so many bytes."""
        return self.head + self.unit * (max(0, size - len(self.head) - len(self.tail)) // len(self.unit)) + self.tail


class Parser(msgspec.Struct, frozen=True):
    """Takes bytes and does no I/O."""

    name: str
    check: Callable[[bytes], str]
    """Takes one input, and says what became of it: TAKEN, or the code of the refusal. What else it raises but
    `refusals` is a defect, and so is what it asserts itself."""
    seeds: tuple[bytes, ...]
    """Inputs that are taken, to be mutated."""
    refusals: tuple[type[Exception], ...] = ()
    """Its documented ones."""
    stretches: tuple[Stretch, ...] = ()
    """What is most work for its size."""
    seal: Callable[[bytes], bytes] | None = None
    """Makes checksums right again, so that mutations reach what is behind them."""
    steps_per_byte: int = 60
    """Lines of Python that a byte of input may cost at most, beside work.STEPS_FREE."""
    kept_bytes_max: int = 256 * 1024
    """What may stay allocated after any number of inputs: its tables are full then."""
    peak_per_byte: int = 400
    """Bytes that may be allocated at one time for each byte of input, beside work.PEAK_BYTES_FREE."""


def cuts_of(data: bytes) -> list[int]:
    """Places to cut an input at, the same ones each time; a short one now and then at each byte."""
    chance = random.Random(zlib.crc32(data))
    count = min(len(data) - 1, chance.choice((1, 2, 5, 20, SHORT_BYTES)))
    return sorted(chance.sample(range(1, len(data)), max(0, count)))


def in_pieces(data: bytes) -> Iterator[bytes]:
    edges = cuts_of(data)
    for start, stop in zip((0, *edges), (*edges, len(data)), strict=True):
        yield data[start:stop]
