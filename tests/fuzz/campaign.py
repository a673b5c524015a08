"""Parsers under atheris: inputs that reach new places in the code are kept, and changed again.

Each parser has a process of its own, which is forked from one that has imported everything with instrumentation; there
are as many at a time as there are cores. What was reached is kept in .fuzz/, for the next time.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import re
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Final

import msgspec

from tests.fuzz.cases import PROGRAM_BYTES_MAX
from tests.fuzz.mutation import INPUT_BYTES_MAX, mutated
from tests.fuzz.row import Row
from tests.fuzz.target import Parser
from tests.fuzz.trial import BrokenError, keep, kept, outcome, shrunk

CORPUS: Final = Path(".fuzz")
OWN_SHARE: Final = 0.5
"""Of mutations that are ours, and know of checksums; the others are libFuzzer's."""
STRETCH_BYTES: Final = 1_000
"""Of those that it begins with: what is longer is traced line by line, and slow."""
TRACED_ONE_IN: Final = 8
"""Of the longer cases: which takes ten times as long."""
RSS_MB_MAX: Final = 2048
TIMEOUT_S: Final = 60
"""For one case, by the wall clock, where no other bound ends it: as code in C may run on."""
LOOK_S: Final = 0.5

_LINE: Final = re.compile(r"^#(\d+)\s+\w+\s+cov: (\d+) ft: (\d+)", re.MULTILINE)


class _Run(msgspec.Struct):
    target: Parser
    process: ForkProcess
    folder: Path


def fuzz_parsers(targets: Sequence[Parser], seconds: int, jobs: int, advance: Callable[[float], None]) -> Iterator[Row]:
    """`seconds`: for each; `advance` is told how many have passed."""
    left = list(targets)
    running: dict[int, _Run] = {}
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tidegate-fuzz-") as folder:
        while left or running:
            while left and len(running) < jobs:
                run = _started(left.pop(0), seconds, Path(folder))
                running[run.process.sentinel] = run
            ended = wait(list(running), timeout=LOOK_S)
            now_s = time.monotonic()
            advance(now_s - began_s)
            began_s = now_s
            for sentinel in ended:
                yield _row(running.pop(int(str(sentinel))))


def _started(target: Parser, seconds: int, folder: Path) -> _Run:
    own = folder / str(len(list(folder.iterdir())))
    own.mkdir()
    process = multiprocessing.get_context("fork").Process(target=_fuzz, args=(target, seconds, own))
    process.start()
    return _Run(target, process, own)


def _fuzz(target: Parser, seconds: int, folder: Path) -> None:
    """In a process of its own, which libFuzzer ends."""
    import atheris

    output = os.open(folder / "output", os.O_CREAT | os.O_WRONLY)
    os.dup2(output, 1)
    os.dup2(output, 2)
    seeds = folder / "seeds"
    seeds.mkdir()
    for number, data in enumerate(_first_inputs(target)):
        (seeds / str(number)).write_bytes(data)
    corpus = CORPUS / target.name.replace(":", "-").replace(" ", "-")
    corpus.mkdir(parents=True, exist_ok=True)

    def one(data: bytes) -> None:
        try:
            outcome(target, data, traced=zlib.crc32(data) % TRACED_ONE_IN == 0)
        except BrokenError:
            (folder / "found-broken").write_bytes(data)
            raise

    def changed(data: bytes, size_max: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if chance.random() > OWN_SHARE:
            return bytes(atheris.Mutate(data, size_max))
        program = chance.randbytes(chance.randrange(1, PROGRAM_BYTES_MAX))
        return mutated(program, [data, *target.seeds], target.seal)[:size_max]

    options = {
        "max_total_time": seconds, "max_len": INPUT_BYTES_MAX, "rss_limit_mb": RSS_MB_MAX, "timeout": TIMEOUT_S,
        "artifact_prefix": f"{folder}/found-", "print_final_stats": 1,
    }  # fmt: skip
    arguments = [f"-{name}={value}" for name, value in options.items()]
    atheris.Setup(["fuzz", *arguments, str(corpus), str(seeds)], one, custom_mutator=changed)
    atheris.Fuzz()


def _first_inputs(target: Parser) -> Iterator[bytes]:
    yield from target.seeds
    yield from kept(target.name)
    for stretch in target.stretches:
        yield stretch.of(STRETCH_BYTES)


def _row(run: _Run) -> Row:
    run.process.join()
    output = (run.folder / "output").read_text(errors="replace")
    row = Row(target=run.target.name)
    for cases, coverage, features in _LINE.findall(output)[-1:]:
        row.cases, row.coverage, row.features = int(cases), int(coverage), int(features)
    found = sorted(run.folder.glob("found-*"))
    if found:
        row.result, row.found = "BROKEN", _named(run.target, found[0])
    elif run.process.exitcode:
        row.result, row.found = "BROKEN", output[-2000:]
    return row


def _named(target: Parser, path: Path) -> str:
    """Made small, kept, and how to try it again; by libFuzzer's name for it (`timeout`) where it holds by itself."""
    data = path.read_bytes()
    try:
        outcome(target, data)
    except BrokenError as broken:
        return keep(shrunk(broken, target))
    return keep(BrokenError(target.name, data, path.name.split("-")[1], ""))
