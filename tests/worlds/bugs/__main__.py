"""`make bugs`: after how many worlds each deliberate bug is caught, and by which law."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from tests.worlds.bugs.tree import Bug, bugs, with_bug
from tidegate.console import progress, show

SEEDS_MAX: Final = 500
COLUMNS: Final = {"bug": "bug", "seeds": "caught after", "law": "by the law", "text": "what is wrong"}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.worlds.bugs", description=__doc__)
    parser.add_argument("names", nargs="*", help="only these (default: all)")
    parser.add_argument("--seeds", type=int, default=SEEDS_MAX, help=f"at most (default: {SEEDS_MAX})")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="at a time (default: one for each core)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    chosen = [bug for bug in bugs() if not options.names or bug.name in options.names]
    rows: list[dict[str, Any]] = []
    with progress("bugs", len(chosen)) as shown, ThreadPoolExecutor(options.jobs) as pool:
        for row in pool.map(lambda bug: caught(bug, options.seeds), chosen):
            rows.append(row)
            shown.advance()
    show(rows, columns=COLUMNS, as_json=options.json)
    missed = [row["bug"] for row in rows if row["seeds"] is None]
    if missed:
        print(f"not caught within {options.seeds} worlds: {', '.join(missed)}", file=sys.stderr)
    return 1 if missed else 0


def caught(bug: Bug, seeds: int) -> dict[str, Any]:
    """One row: after how many worlds, None if after none."""
    with with_bug(bug) as tree:
        done = subprocess.run(
            [sys.executable, "-m", "tests.worlds", "--seeds", str(seeds), "--until-broken"],
            cwd=tree,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode == 0:
        return {"bug": bug.name, "seeds": None, "law": "", "text": bug.text}
    seed, _, law = done.stdout.strip().splitlines()[-1].partition(" ")
    if not seed.isdecimal():
        raise RuntimeError(f"{bug.name}: {done.stdout[-500:]}{done.stderr[-1000:]}")
    return {"bug": bug.name, "seeds": int(seed) + 1, "law": law.partition(":")[0], "text": bug.text}


if __name__ == "__main__":
    sys.exit(main())
