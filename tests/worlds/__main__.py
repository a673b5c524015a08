"""Runs worlds: `python -m tests.worlds --seeds 5000`, or one, with its trace: `--seed 17 --trace FILE`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.worlds.runner import Failure, run, run_seeds
from tests.worlds.world import World
from tidegate.console import number_text

HASH_SEED = "0"
"""Sets of texts are walked in the same order in every run."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.worlds", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many worlds (default: 200)")
    parser.add_argument("--first", type=int, default=0, help="the first one's seed (default: 0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes (default: one for each core)")
    parser.add_argument("--seed", type=int, help="run this world alone, and tell of it")
    parser.add_argument("--trace", type=Path, help="with --seed: write the whole trace to this file")
    parser.add_argument("--until-broken", action="store_true", help="one after the other, to the first that fails")
    options = parser.parse_args()
    if options.seed is not None:
        return _one(options.seed, options.trace)
    seeds = range(options.first, options.first + options.seeds)
    if options.until_broken:
        return _until_broken(seeds)
    failures = run_seeds(seeds, jobs=options.jobs)
    for failure in failures[:3]:
        _tell(failure)
    if failures:
        broken = " ".join(str(failure.seed) for failure in failures[:50])
        print(f"{len(failures)} of {number_text(options.seeds)} worlds broke a law: seeds {broken}")
    else:
        print(f"{number_text(options.seeds)} worlds, no law broken")
    return 1 if failures else 0


def _one(seed: int, trace: Path | None) -> int:
    outcome = World(seed, whole_trace=trace is not None).run()
    if trace is not None:
        trace.write_text("\n".join(outcome.trace) + "\n")
    print(
        f"seed {seed}: {number_text(outcome.messages)} messages, {outcome.faults} faults, "
        f"{number_text(outcome.records)} records, {number_text(outcome.steps)} steps, {outcome.virtual_s:.0f} s"
    )
    if not outcome.violations:
        print("no law broken")
        return 0
    _tell(Failure(seed, outcome.violations, outcome.trace[-40:] if trace is None else []))
    return 1


def _until_broken(seeds: Iterable[int]) -> int:
    """Ends with a line `SEED LAW: …` if there is one."""
    for seed in seeds:
        for failure in run([seed]):
            print(failure.seed, failure.violations[0])
            return 1
    return 0


def _tell(failure: Failure) -> None:
    print("\n".join(failure.trace))
    print(f"\nseed {failure.seed} breaks:")
    for violation in failure.violations:
        print(f"  {violation}")
    print(f"  replay: python -m tests.worlds --seed {failure.seed} --trace FILE\n")


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != HASH_SEED:
        os.execve(
            sys.executable,
            [sys.executable, "-m", "tests.worlds", *sys.argv[1:]],
            {**os.environ, "PYTHONHASHSEED": HASH_SEED},
        )
    sys.exit(main())
