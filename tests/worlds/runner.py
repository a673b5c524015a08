"""Many worlds on all cores."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from tests.worlds.world import World
from tidegate.console import progress

CHUNK: Final = 5
"""Worlds that a process takes at once: a second or two of work."""


class Failure(msgspec.Struct):
    seed: int
    violations: list[str]
    trace: list[str]
    """Its last lines."""


def run_seeds(seeds: Sequence[int], *, jobs: int) -> list[Failure]:
    """Runs them all, shows how far it is, and gives those that broke a law, by seed."""
    failures: list[Failure] = []
    with progress("worlds", len(seeds)) as shown:
        for found in outcomes(seeds, jobs=jobs):
            shown.advance(CHUNK)
            failures += found
    return sorted(failures, key=lambda failure: failure.seed)


def outcomes(seeds: Sequence[int], *, jobs: int) -> Iterator[list[Failure]]:
    """The failures of each chunk, as they are done."""
    chunks = [seeds[at : at + CHUNK] for at in range(0, len(seeds), CHUNK)]
    if jobs == 1:
        yield from map(run, chunks)
        return
    # Processes that end now and then keep memory flat, whatever a world leaves behind.
    with multiprocessing.get_context("fork").Pool(jobs, maxtasksperchild=20) as pool:
        yield from pool.imap_unordered(run, chunks)


def run(seeds: Iterable[int]) -> list[Failure]:
    failures = []
    for seed in seeds:
        try:
            outcome = World(seed).run()
        except Exception as error:  # noqa: BLE001  # a defect of the world itself has a seed, too
            failures.append(Failure(seed, [f"the world failed: {error!r}"], []))
        else:
            if outcome.violations:
                failures.append(Failure(seed, outcome.violations, outcome.trace))
    return failures
