"""The batch keys that the log has: what makes a batch that is published again be kept once.

Counters are kept as ranges, not as a highest one: a batch that was refused, or lost before it came here, may well be
published again after later ones were recorded, and must not be taken for known. What is forgotten (quiet runs, the
lowest ranges) can at worst be recorded twice, never lost.
"""

from __future__ import annotations

import itertools
import operator
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from protocols.batch import BatchKey
from sync.log.settings import KEY_RANGES_MAX, KEY_RUNS_MAX
from sync.ranges import Ranges

KeySnapshot = list[tuple[int, list[tuple[int, int]]]]
"""For each run its ranges of counters; the run that was heard last comes last."""

_RUN_BYTES_MAX: Final = 9 + 1 + 3
_RANGE_BYTES_MAX: Final = 1 + 9 + 9
"""What a run, and a range of it, take at most as MessagePack."""
_run = operator.attrgetter("run")


class KeyTable:
    def __init__(self) -> None:
        self._runs: OrderedDict[int, Ranges] = OrderedDict()

    def __contains__(self, key: BatchKey) -> bool:
        counters = self._runs.get(key.run)
        return counters is not None and key.counter in counters

    def __len__(self) -> int:
        return len(self._runs)

    def add(self, keys: Iterable[BatchKey]) -> None:
        for run, of_run in itertools.groupby(keys, _run):
            counters = self._counters(run)
            for key in of_run:
                counters.add(key.counter, key.counter + 1)
                if counters.parts > KEY_RANGES_MAX:
                    counters.drop_first()
        self._forget()

    def load(self, snapshot: KeySnapshot) -> None:
        for run, ranges in snapshot:
            counters = self._counters(run)
            for first, end in ranges:
                counters.add(first, end)
        self._forget()

    def snapshot(self, bytes_max: int) -> KeySnapshot:
        """What fits into `bytes_max` as MessagePack, the runs heard last before others."""
        taken: KeySnapshot = []
        size = 5
        for run, counters in reversed(self._runs.items()):
            size += _RUN_BYTES_MAX + _RANGE_BYTES_MAX * counters.parts
            if size > bytes_max:
                break
            taken.append((run, list(counters)))
        taken.reverse()
        return taken

    def _counters(self, run: int) -> Ranges:
        counters = self._runs.get(run)
        if counters is None:
            counters = self._runs[run] = Ranges()
        else:
            self._runs.move_to_end(run)
        return counters

    def _forget(self) -> None:
        while len(self._runs) > KEY_RUNS_MAX:
            self._runs.popitem(last=False)
