"""Inputs that are nearly right: what is valid, changed by a program of a few bytes.

Hypothesis draws programs, and makes them shorter where one breaks something; the campaign draws them at random. An
empty program gives the first seed as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

CHANGES_MAX: Final = 6
INPUT_BYTES_MAX: Final = 8 * 1024
"""Of a mutated input; longer ones are stretches (target.py)."""

EDGES: Final = (
    0,
    1,
    2,
    0x0D,
    0x1F,
    0x20,
    0x22,
    0x2F,
    0x30,
    0x5B,
    0x7B,
    0x7F,
    0x80,
    0x9F,
    0xC0,
    0xC1,
    0xE0,
    0xF7,
    0xFE,
    0xFF,
)
"""Bytes at which formats change their mind."""


class _Program:
    """Bytes, read one after the other; behind their end, zeros."""

    def __init__(self, program: bytes) -> None:
        self._program = program
        self._at = 0

    @property
    def is_over(self) -> bool:
        return self._at >= len(self._program)

    def byte(self) -> int:
        self._at += 1
        return self._program[self._at - 1] if self._at <= len(self._program) else 0

    def below(self, end: int) -> int:
        """0 to `end` - 1; 0 where there is none."""
        return (self.byte() << 8 | self.byte()) % end if end > 0 else 0

    def slice_of(self, data: bytes | bytearray) -> tuple[int, int]:
        """Mostly short ones."""
        start = self.below(len(data) + 1)
        size = self.byte()
        return start, min(len(data), start + (size if size < 192 else (size - 191) * 64))


Change = Callable[[bytearray, _Program, Sequence[bytes]], None]


def mutated(program: bytes, seeds: Sequence[bytes], seal: Callable[[bytes], bytes] | None = None) -> bytes:
    """The input that the program makes of one of the seeds."""
    said = _Program(program)
    first = said.byte()
    data = bytearray(seeds[first // 2 % len(seeds)])
    for _ in range(CHANGES_MAX):
        if said.is_over:
            break
        _CHANGES[said.byte() % len(_CHANGES)](data, said, seeds)
        del data[INPUT_BYTES_MAX:]
    return bytes(data) if seal is None or first & 1 else seal(bytes(data))


def _flip(data: bytearray, said: _Program, _seeds: Sequence[bytes]) -> None:
    if data:
        data[said.below(len(data))] ^= 1 << said.byte() % 8


def _set(data: bytearray, said: _Program, _seeds: Sequence[bytes]) -> None:
    if data:
        at, value = said.below(len(data)), said.byte()
        data[at] = EDGES[value // 2 % len(EDGES)] if value & 1 else value


def _insert(data: bytearray, said: _Program, _seeds: Sequence[bytes]) -> None:
    at = said.below(len(data) + 1)
    data[at:at] = bytes(said.byte() for _ in range(1 + said.byte() % 8))


def _cut_out(data: bytearray, said: _Program, _seeds: Sequence[bytes]) -> None:
    start, stop = said.slice_of(data)
    del data[start:stop]


def _cut_off(data: bytearray, said: _Program, _seeds: Sequence[bytes]) -> None:
    del data[said.below(len(data) + 1) :]


def _repeat(data: bytearray, said: _Program, _seeds: Sequence[bytes]) -> None:
    start, stop = said.slice_of(data)
    if start < stop:
        times = min(1 << said.byte() % 10, INPUT_BYTES_MAX // (stop - start))
        data[start:stop] = data[start:stop] * times


def _splice(data: bytearray, said: _Program, seeds: Sequence[bytes]) -> None:
    """The end of another seed."""
    other = seeds[said.byte() % len(seeds)]
    data[said.below(len(data) + 1) :] = other[said.below(len(other) + 1) :]


def _append(data: bytearray, said: _Program, seeds: Sequence[bytes]) -> None:
    data += seeds[said.byte() % len(seeds)]


def _put(data: bytearray, said: _Program, seeds: Sequence[bytes]) -> None:
    """Some of another seed, anywhere."""
    other = seeds[said.byte() % len(seeds)]
    start, stop = said.slice_of(other)
    at = said.below(len(data) + 1)
    data[at:at] = other[start:stop]


def _number(data: bytearray, said: _Program, _seeds: Sequence[bytes]) -> None:
    """A length or a count, at the ends of what it may be."""
    size = 1 << said.byte() % 4
    at = said.below(len(data) + 1)
    value = (1 << 8 * size - said.byte() % 3) - 1 - said.byte() % 4
    data[at : at + size] = (max(0, value) % (1 << 8 * size)).to_bytes(size, "little" if said.byte() & 1 else "big")


_CHANGES: Final[tuple[Change, ...]] = (
    _flip, _set, _insert, _cut_out, _cut_off, _repeat, _splice, _append, _put, _number,
)  # fmt: skip
