"""Sets of whole numbers as merged half-open ranges: which records are accepted, or done."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator


class Ranges:
    """Sorted, disjoint, never adjacent `[start, end)`. Small as long as what is added is nearly in order."""

    __slots__ = ("_ends", "_held", "_starts")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._held = 0
        for start, end in ranges:
            self.add(start, end)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._starts, self._ends, strict=True)

    def __len__(self) -> int:
        """Numbers held."""
        return self._held

    def __contains__(self, number: int) -> bool:
        place = bisect.bisect_right(self._starts, number) - 1
        return place >= 0 and number < self._ends[place]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ranges) and self._starts == other._starts and self._ends == other._ends

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"Ranges({list(self)})"

    def add(self, start: int, end: int) -> int:
        """Adds all of [start, end); how many of them were new."""
        if start >= end:
            return 0
        if self._ends and start == self._ends[-1]:  # how nearly all of them come
            self._ends[-1] = end
            self._held += end - start
            return end - start
        first = bisect.bisect_left(self._ends, start)
        last = bisect.bisect_right(self._starts, end)
        held = sum(self._ends[first:last]) - sum(self._starts[first:last])
        if first < last:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]
        added = end - start - held
        self._held += added
        return added

    def remove(self, start: int, end: int) -> int:
        """Takes all of [start, end) out; how many of them were held."""
        parts = self.held(start, end)
        if not parts:
            return 0
        first = bisect.bisect_right(self._ends, start)
        last = bisect.bisect_left(self._starts, end)
        low, high = self._starts[first], self._ends[last - 1]
        left = [(low, start)] if low < start else []
        right = [(end, high)] if end < high else []
        self._starts[first:last] = [part[0] for part in left + right]
        self._ends[first:last] = [part[1] for part in left + right]
        removed = sum(stop - begin for begin, stop in parts)
        self._held -= removed
        return removed

    def touches(self, start: int, end: int) -> bool:
        """Whether adding [start, end) would leave no more parts than there are."""
        return start >= end or bisect.bisect_left(self._ends, start) < bisect.bisect_right(self._starts, end)

    def drop_first(self) -> None:
        """Forgets the lowest part."""
        self._held -= self._ends.pop(0) - self._starts.pop(0)

    def covers(self, start: int, end: int) -> bool:
        """Whether all of [start, end) is held."""
        place = bisect.bisect_right(self._starts, start) - 1
        return start >= end or (place >= 0 and self._ends[place] >= end)

    def missing(self, start: int, end: int) -> list[tuple[int, int]]:
        """The parts of [start, end) that are not held."""
        gaps: list[tuple[int, int]] = []
        place = bisect.bisect_right(self._ends, start)
        while start < end and place < len(self._starts) and self._starts[place] < end:
            if self._starts[place] > start:
                gaps.append((start, self._starts[place]))
            start = self._ends[place]
            place += 1
        if start < end:
            gaps.append((start, end))
        return gaps

    def held(self, start: int, end: int) -> list[tuple[int, int]]:
        """The parts of [start, end) that are held."""
        if start >= end:
            return []
        first = bisect.bisect_right(self._ends, start)
        last = bisect.bisect_left(self._starts, end)
        return [(max(start, self._starts[at]), min(end, self._ends[at])) for at in range(first, last)]

    def first_missing(self, number: int) -> int:
        """The lowest number from `number` on that is not held."""
        place = bisect.bisect_right(self._starts, number) - 1
        return max(number, self._ends[place]) if place >= 0 else number

    def steps(self) -> list[int]:
        """What `of_steps` makes the same ranges from: how far each lies behind the one before and how long it is, by
        turns. Small numbers, where the ranges are near each other."""
        steps: list[int] = []
        at = 0
        for start, end in self:
            steps += (start - at, end - start)
            at = end
        return steps

    @classmethod
    def of_steps(cls, steps: list[int]) -> Ranges:
        ranges = cls()
        at = 0
        for skipped, length in zip(steps[::2], steps[1::2], strict=True):
            ranges.add(at + skipped, at + skipped + length)
            at += skipped + length
        return ranges

    @property
    def parts(self) -> int:
        """How many separate ranges there are."""
        return len(self._starts)

    @property
    def end(self) -> int:
        """The number after the highest one held; 0 when empty."""
        return self._ends[-1] if self._ends else 0
