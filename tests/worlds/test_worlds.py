"""A few worlds on each check, a few hundred with the whole of the tests; `make worlds SEEDS=n` runs more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.worlds.regressions import SEEDS

FEW = 8
MANY = 200
CHUNK = 64


def run(*arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tests.worlds", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_no_world_breaks_a_law() -> None:
    run("--seeds", FEW)


@pytest.mark.servers
@pytest.mark.parametrize("first", range(FEW, MANY, CHUNK))
def test_no_world_of_many_breaks_a_law(first: int) -> None:
    run("--first", first, "--seeds", CHUNK)


def test_what_was_wrong_once_stays_right() -> None:
    for seed in SEEDS:
        run("--seed", seed)


def test_a_seed_replays_to_the_same_trace(tmp_path: Path) -> None:
    traces = [tmp_path / "first", tmp_path / "second"]
    for trace in traces:
        run("--seed", 7, "--trace", trace)

    assert traces[0].read_text() == traces[1].read_text()
    assert len(traces[0].read_text().splitlines()) > 1000
