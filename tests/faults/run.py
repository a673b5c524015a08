"""Runs rows one after the other, each bounded in time, and says how far it is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tests.faults import rows_clock, rows_cloud, rows_disk, rows_gateway, rows_link, rows_many, rows_store
from tests.faults.bench import Bench
from tests.faults.row import ROWS, Outcome, Row
from tidegate.console import Live, live

PARTS = (rows_gateway, rows_disk, rows_store, rows_link, rows_cloud, rows_clock, rows_many)
"""Of the table, in this order."""


def all_rows() -> list[Row]:
    places = {part.__name__: place for place, part in enumerate(PARTS)}
    return sorted(ROWS.values(), key=lambda row: places[row.run.__module__])


async def run_rows(rows: Sequence[Row], *, quick: bool) -> list[Outcome]:
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="tidegate-faults-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)  # engines that root starts drop their rights, and must get at their data
        teller = _Teller(len(rows))
        bench = Bench(Path(folder), quick=quick, say=teller.say)
        try:
            for number, row in enumerate(rows, 1):
                with teller.of(number, row):
                    outcome = await _run(row, bench)
                    teller.done(outcome)
                outcomes.append(outcome)
        finally:
            await bench.close()
    return outcomes


def outcome_rows(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """For the table."""
    return [_shown(outcome) for outcome in outcomes]


def written(outcomes: Sequence[Outcome]) -> bytes:
    rows = [msgspec.to_builtins(outcome) | {"holds": outcome.holds} for outcome in outcomes]
    return msgspec.json.format(msgspec.json.encode(rows))


def _shown(outcome: Outcome) -> dict[str, Any]:
    found = outcome.finding
    figures = msgspec.structs.asdict(found) if found else {}
    broken = len(found.broken) if found else 0
    return {
        **figures,
        "row": outcome.row,
        "fault": outcome.fault,
        "injected": found.note if found and found.note else outcome.injected,
        "invariants": "" if found is None else f"{found.held} hold" + (f", {broken} do not" if broken else ""),
        "result": f"{'holds' if outcome.holds else 'DOES NOT HOLD'}, {outcome.seconds:.0f} s",
    }


async def _run(row: Row, bench: Bench) -> Outcome:
    began_s = time.monotonic()
    finding, error = None, ""
    missing = [need for need in row.needs if not _is_there(need)]
    try:
        if missing:
            error = f"it needs {', '.join(missing)}"
        else:
            async with asyncio.timeout(row.limit_s):
                finding = await row.run(bench)
    except TimeoutError as late:
        error = f"it took longer than {row.limit_s:.0f} s, or a part of it than it may: {_place(late)}"
    except Exception as broken:  # noqa: BLE001 - the other rows go on, and this one says why it did not
        error = f"{type(broken).__name__}: {broken} ({_place(broken)})"
    return Outcome(row.name, row.fault, row.injected, round(time.monotonic() - began_s, 1), finding, error)


def _is_there(need: str) -> bool:
    return os.geteuid() == 0 if need == "root" else shutil.which(need) is not None


def _place(error: BaseException) -> str:
    """Where in the row it was."""
    ours = [frame for frame in traceback.extract_tb(error.__traceback__) if "/tests/" in frame.filename]
    return ", ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in ours[-3:])


class _Teller:
    """A line that lives for the row that runs; it stays when the row is done."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._head = ""
        self._began_s = 0.0
        self._shown: Live | None = None

    @contextlib.contextmanager
    def of(self, number: int, row: Row) -> Iterator[None]:
        self._head = f"{number} of {self._rows} · {row.name}"
        self._began_s = time.monotonic()
        with live({}) as self._shown:
            self.say(row.fault)
            yield

    def say(self, text: str) -> None:
        if self._shown is not None:
            self._shown.show([], f"… {self._head} · {time.monotonic() - self._began_s:.0f} s · {text}")

    def done(self, outcome: Outcome) -> None:
        found = outcome.finding
        what = outcome.error
        if found is not None:
            what = (
                f"{found.messages:,} messages, acknowledged {found.acknowledged:,}, stored {found.stored:,},"
                f" gaps {found.gaps:,}, lost {found.lost:,}, doubled {found.doubled:,}"
            )
        assert self._shown is not None
        sign = "✓" if outcome.holds else "✗"
        self._shown.show([], f"{sign} {self._head} · {outcome.seconds:.0f} s · {what}")
