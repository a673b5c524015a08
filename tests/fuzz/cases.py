"""A number of cases, tried on a parser one after the other: what hypothesis makes of its seeds, the same each time."""

from __future__ import annotations

import random
from collections import Counter
from functools import partial
from typing import Final

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz.mutation import mutated
from tests.fuzz.target import Parser
from tests.fuzz.trial import BrokenError, keep, kept, outcome, shrunk
from tests.fuzz.work import PEAK_BYTES_FREE, memory_of

TOGETHER: Final = 8
"""Cases in one example of hypothesis, which costs more than most of them."""
PROGRAM_BYTES_MAX: Final = 40

PROGRAMS: Final = st.lists(st.binary(max_size=PROGRAM_BYTES_MAX), min_size=TOGETHER, max_size=TOGETHER)


def try_cases(target: Parser, cases: int) -> Counter[str]:
    """What became of them. Raises AssertionError for one that broke something, which is kept."""
    became: Counter[str] = Counter()

    @settings(
        max_examples=cases // TOGETHER,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(PROGRAMS)
    def each(programs: list[bytes]) -> None:
        for program in programs:
            became[outcome(target, mutated(program, target.seeds, target.seal))] += 1

    try:
        each()
    except BrokenError as broken:
        raise AssertionError(keep(shrunk(broken, target))) from broken
    return became


def try_stretches(target: Parser, size: int) -> None:
    """What is most work for its size, and all that broke it once. Raises AssertionError."""
    for data in (*(stretch.of(size) for stretch in target.stretches), *kept(target.name), *target.seeds):
        try:
            outcome(target, data)
        except BrokenError as broken:
            raise AssertionError(keep(broken)) from broken


def try_memory(target: Parser, cases: int, size: int) -> None:
    """That nothing is left behind by cases, and no stretch takes memory out of proportion. Raises AssertionError."""
    chance = random.Random(target.name)
    inputs = [mutated(chance.randbytes(PROGRAM_BYTES_MAX), target.seeds, target.seal) for _ in range(cases)]

    def try_all() -> None:
        for data in inputs:
            outcome(target, data)

    outcome(target, target.seeds[0])
    left = memory_of(try_all).kept
    assert left <= target.kept_bytes_max, f"{target.name}: {left:,} bytes are left behind by {cases} cases"
    for stretch in target.stretches:
        data = stretch.of(size)
        peak = memory_of(partial(outcome, target, data, traced=False)).peak
        assert peak <= PEAK_BYTES_FREE + target.peak_per_byte * len(data), (
            f"{target.name}: {peak:,} bytes for {len(data):,} of {stretch.unit!r}"
        )
