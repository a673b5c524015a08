"""`make bench`: every stage beside its baseline, as a table and as JSON."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from benchmarks import (
    big_log,
    bus,
    catch_up,
    coap,
    codecs,
    curator,
    end_to_end,
    frames,
    gateway,
    history,
    http,
    http_ingest,
    link,
    log,
    pipeline,
    polled,
)
from benchmarks.row import Row
from tidegate.console import number_text, show

OUTPUT: Final = Path(".bench/bench.json")
COLUMNS: Final = {
    "stage": "stage",
    "measured": "measured",
    "unit": "unit",
    "goal": "goal",
    "reached": "",
    "baseline": "baseline",
    "ratio": "of it",
    "note": "note",
}


def log_rows(seconds: float) -> list[Row]:
    goals = {(10, 32): 50_000, (100, 32): 300_000}
    found = []
    for figures in log.rows(seconds):
        if not figures.appenders:
            continue
        found.append(
            Row(
                f"log append, synced, batches of {figures.batch}, {figures.appenders} at once",
                figures.messages_per_s,
                "messages/s",
                goal=goals.get((figures.batch, figures.appenders)),
                baseline="bare write and sync of each batch",
                baseline_measured=figures.bare_per_s,
                note=f"{figures.messages_per_sync:,.0f} messages a sync",
            )
        )
        if figures.batch == 500:
            found.append(Row("bytes on disk, batches of 500", figures.bytes_per_message, "B/message", 30, at_most=True))
    return found


def link_rows(seconds: float) -> list[Row]:
    found = []
    for figures in link.rows(seconds):
        if figures.block != 500:
            continue
        found += [
            Row(
                "link, batches of 500",
                figures.gateway_us + figures.cloud_us,
                "µs/message",
                goal=1.0,
                at_most=True,
                baseline="bare WebSocket, same bytes",
                baseline_measured=figures.bare_us,
            ),
            Row("bytes on the wire, batches of 500", figures.bytes_per_message, "B/message", goal=15, at_most=True),
        ]
    return found


PARTS: Final[dict[str, tuple[Callable[[float], list[Row]], float]]] = {
    "codecs": (codecs.rows, 0.5),
    "pipeline": (pipeline.rows, 5.0),
    "history": (history.rows, 1.0),
    "curator": (curator.rows, 1.0),
    "log": (log_rows, 3.0),
    "big_log": (big_log.rows, 1.0),
    "bus": (bus.rows, 2.0),
    "link": (link_rows, 3.0),
    "http": (http.rows, 3.0),
    "http_ingest": (http_ingest.rows, 5.0),
    "gateway": (gateway.rows, 8.0),
    "coap": (coap.rows, 3.0),
    "frames": (frames.rows, 4.0),
    "polled": (polled.rows, 3.0),
    "end_to_end": (end_to_end.rows, 60.0),
    "catch_up": (catch_up.rows, 1.0),
}
"""Name to its rows, and the seconds given to each of its measurements (of `big_log`, `catch_up`, `history`, `curator`:
the part of what they fill)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all without a name")
    parser.add_argument("--scale", type=float, default=1.0, help="times the usual time of each measurement")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.parts) - set(PARTS))
    if unknown:
        parser.error(f"no part is called {', '.join(unknown)}; there are {', '.join(PARTS)}")
    rows: list[Row] = []
    for name, (measure, seconds) in PARTS.items():
        if not arguments.parts or name in arguments.parts:
            print(f"measuring {name} …", file=sys.stderr, flush=True)
            rows += measure(seconds * arguments.scale)
    show([_shown(row) for row in rows], columns=COLUMNS, as_json=False)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    machine = {"cores": len(os.sched_getaffinity(0)), "machine": platform.machine(), "unix_s": int(time.time())}
    whole = {"machine": machine, "rows": [msgspec.to_builtins(row) | {"reached": row.reached} for row in rows]}
    arguments.output.write_bytes(msgspec.json.format(msgspec.json.encode(whole)))
    print(f"written to {arguments.output}")


def _shown(row: Row) -> dict[str, str]:
    return {
        "stage": row.stage,
        "measured": _figure(row.measured),
        "unit": row.unit,
        "goal": "" if row.goal is None else f"{'≤' if row.at_most else '≥'} {_figure(row.goal)}",
        "reached": {True: "✓", False: "✗", None: ""}[row.reached],
        "baseline": row.baseline,
        "ratio": "" if row.ratio is None else f"{row.ratio:.2f}",
        "note": row.note,
    }


def _figure(value: float) -> str:
    return number_text(round(value)) if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
