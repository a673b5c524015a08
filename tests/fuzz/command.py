"""`make fuzz`: any bytes, to each parser and listener, for a time.

    python -m tests.fuzz --minutes 10                       all targets
    python -m tests.fuzz --minutes 1 --target codec         those whose names begin so
    python -m tests.fuzz --target codec:cbor --replay FILE  one input again

Targets are imported where they are wanted: by instrumented code where it is to say what an input reached, and else not.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import itertools
import math
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Final

from tests.fuzz.row import COLUMNS, Row
from tests.fuzz.trial import BrokenError, inputs_of, outcome
from tidegate.console import Progress, number_text, progress, show

INSTRUMENTED: Final = ["protocols", "edge.http", "edge.listeners", "sync.link", "sync.registry"]
"""Packages whose code says what an input reached."""
LISTENERS_SHARE: Final = 0.4
"""Of the time, where both kinds are fuzzed: a listener takes the whole machine, parsers a core each."""
PARSER_S_MIN: Final = 1
PARSER_START_S: Final = 1.0
LISTENER_S_MIN: Final = 2.0
LISTENER_START_S: Final = 4.0
"""To start and to end, beside the time in which it is fuzzed."""
LOOK_S: Final = 0.5


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Any bytes, to each parser and listener.")
    parser.add_argument(
        "--minutes", type=float, default=1.0, help="for all of it (default: 1); each has some seconds at least"
    )
    parser.add_argument("--target", action="append", default=[], help="a name, or how some begin; all without it")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="parsers at a time (default: one a core)")
    parser.add_argument("--replay", type=Path, help="with --target: this input, and nothing else")
    parser.add_argument("--json", action="store_true", help="the table as JSON")
    options = parser.parse_args()
    import atheris

    with (
        contextlib.redirect_stderr(io.StringIO()),  # it names each module
        atheris.instrument_imports(include=INSTRUMENTED if options.replay is None else []),
    ):
        from tests.fuzz.house import PARSERS
    from tests.fuzz.listeners.targets import LISTENERS

    names = [*PARSERS, *LISTENERS]
    chosen = [name for name in names if _is_chosen(name, options.target)]
    if not chosen:
        parser.error(f"no target begins with {' or '.join(options.target)}; there are {', '.join(names)}")
    if options.replay is not None:
        exact = [name for name in chosen if name in options.target] or chosen
        if len(exact) != 1:
            parser.error(f"one target is replayed at a time; these begin so: {', '.join(exact)}")
        return _replay(exact[0], options.replay)
    return _campaign(chosen, options.minutes * 60, options.jobs, as_json=options.json)


def _is_chosen(name: str, wanted: Sequence[str]) -> bool:
    return not wanted or any(name.startswith(one) for one in wanted)


def _campaign(names: Sequence[str], seconds: float, jobs: int, *, as_json: bool) -> int:
    from tests.fuzz.campaign import fuzz_parsers
    from tests.fuzz.house import PARSERS

    parsers = [PARSERS[name] for name in names if name in PARSERS]
    listeners = [name for name in names if name not in PARSERS]
    share = LISTENERS_SHARE if parsers and listeners else float(bool(listeners))
    turns = math.ceil(len(parsers) / jobs)
    parser_s = max(PARSER_S_MIN, round(seconds * (1 - share) / max(1, turns) - PARSER_START_S))
    listener_s = max(LISTENER_S_MIN, seconds * share / max(1, len(listeners)) - LISTENER_START_S)
    whole_s = turns * (parser_s + PARSER_START_S) + len(listeners) * (listener_s + LISTENER_START_S)
    rows: list[Row] = []
    with progress("seconds of fuzzing", round(whole_s)) as shown:
        passed = _Passed(shown)
        for row in itertools.chain(
            fuzz_parsers(parsers, parser_s, jobs, passed.advance), _listeners(listeners, listener_s, passed)
        ):
            _tell(row)
            rows.append(row)
    rows.sort(key=lambda row: names.index(row.target))
    show([_shown(row) for row in rows], columns=COLUMNS, as_json=as_json)
    broken = [row for row in rows if not row.holds]
    if not as_json:
        cases = number_text(sum(row.cases for row in rows))
        print(f"\n{cases} cases at {len(rows)} targets; {len(rows) - len(broken)} hold")
    return 1 if broken else 0


def _listeners(names: Sequence[str], seconds: float, passed: _Passed) -> Iterator[Row]:
    """By a process that is not instrumented: it measures."""
    from tests.fuzz.listeners.measure import flooded

    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
        for name in names:
            flooding = apart.submit(flooded, name, seconds)
            while not wait([flooding], timeout=LOOK_S).done:
                passed.advance(LOOK_S)
            yield flooding.result()


class _Passed:
    """Whole seconds of what passed."""

    def __init__(self, shown: Progress) -> None:
        self._shown = shown
        self._left = 0.0

    def advance(self, seconds: float) -> None:
        self._left += seconds
        whole = int(self._left)
        self._left -= whole
        self._shown.advance(whole)


def _tell(row: Row) -> None:
    """What broke is said at once: a campaign may last for hours."""
    if not row.holds:
        print(f"{row.target}: {row.result}\n{row.found}", file=sys.stderr, flush=True)


def _shown(row: Row) -> dict[str, object]:
    return {key: getattr(row, key) for key in (*COLUMNS, "found")}


def _replay(name: str, path: Path) -> int:
    from tests.fuzz.house import PARSERS

    try:
        for data in inputs_of(path):
            if name in PARSERS:
                print(outcome(PARSERS[name], data))
            else:
                asyncio.run(_throw(name, data))
                print("the gateway and the device beside it are well")
    except BrokenError as broken:
        print(f"{broken}\n{broken.where}", end="")
        return 1
    return 0


async def _throw(name: str, data: bytes) -> None:
    from tests.fuzz.listeners.flooding import beside
    from tests.fuzz.listeners.site import FuzzSite
    from tests.fuzz.listeners.targets import LISTENERS

    with tempfile.TemporaryDirectory(prefix="tidegate-fuzz-") as folder:
        site = FuzzSite(Path(folder))
        await site.furnish()
        async with site.running() as gateway, beside(gateway, LISTENERS[name], name) as flooding:
            await flooding.flood([data])
        site.close()
