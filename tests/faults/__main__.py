"""`make faults`: real faults on real processes, one row each, and the proof of what became of the messages.

    python -m tests.faults [ROW …] [--list] [--json FILE] [--quick]

ROW is a name, or the beginning of several: `link` stands for all faults of the link.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from tests.faults.row import Row
from tests.faults.run import all_rows, outcome_rows, run_rows, written
from tidegate.console import show

COLUMNS = {
    "row": "row",
    "fault": "fault",
    "messages": "messages",
    "acknowledged": "acknowledged",
    "stored": "stored",
    "waiting": "waiting",
    "gaps": "gaps",
    "lost": "lost",
    "doubled": "doubled",
    "invariants": "invariants",
    "result": "result",
    "injected": "how injected",
}


def chosen(names: list[str]) -> list[Row]:
    """In the table's order; all without a name. Raises SystemExit for a name that is none."""
    rows = all_rows()
    unknown = [name for name in names if not any(row.name.startswith(name) for row in rows)]
    if unknown:
        sys.exit(f"error: no row is called {', '.join(unknown)}\n  try: --list")
    return [row for row in rows if not names or any(row.name.startswith(name) for name in names)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Real faults on real processes.")
    parser.add_argument("rows", nargs="*", metavar="ROW", help="a row, or the beginning of several; all without one")
    parser.add_argument("--list", action="store_true", help="show the rows and end")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table there too")
    parser.add_argument("--quick", action="store_true", help="smaller sizes and shorter times")
    arguments = parser.parse_args()
    rows = chosen(arguments.rows)
    if arguments.list:
        columns = {"row": "row", "fault": "fault", "injected": "how injected"}
        show([{"row": r.name, "fault": r.fault, "injected": r.injected} for r in rows], columns=columns, as_json=False)
        return
    outcomes = asyncio.run(run_rows(rows, quick=arguments.quick))
    print()
    show(outcome_rows(outcomes), columns=COLUMNS, as_json=False)
    for outcome in outcomes:
        for line in outcome.finding.broken if outcome.finding else [outcome.error]:
            print(f"✗ {outcome.row}: {line}")
    if arguments.json is not None:
        arguments.json.write_bytes(written(outcomes))
    held = sum(outcome.holds for outcome in outcomes)
    print(f"\n{held} of {len(outcomes)} rows hold, in {sum(outcome.seconds for outcome in outcomes) / 60:.0f} minutes")
    sys.exit(held != len(outcomes))


if __name__ == "__main__":
    main()
