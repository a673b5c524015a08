"""A listener and its baseline, one after the other in a process of their own, under a load from a third process."""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import uvloop

from benchmarks.mqtt import START_S, InstantBus
from benchmarks.row import Row
from edge.listeners.clock import SystemClock
from edge.listeners.collector import Collector
from edge.listeners.listener import Listener, Shared
from sync.registry import Network, Registry, RegistryChange

WARM_UP_S: Final = 0.5
SECRET: Final = "benchmark"
"""The credential of the network `bench`."""


class Beside:
    """`module` is run with the name of a part: `listener` and `bare` print their port and serve until they are ended,
    `load` sends to a port for some seconds and prints answers a second."""

    def __init__(self, module: str) -> None:
        self._command = (sys.executable, "-m", module)

    def answers_per_s(self, part: str, seconds: float) -> float:
        with serving(*self._command, part) as port:
            command = [*self._command, "load", str(port), "--seconds", str(seconds)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=seconds + START_S, text=True)
            return float(done.stdout)


@contextmanager
def serving(*command: str) -> Iterator[int]:
    """A process that prints its port and serves until it is ended."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait(START_S)
        if process.stdout is not None:
            process.stdout.close()


async def listen(make: Callable[[Shared], Listener]) -> None:
    """The part `listener`: on network `bench`, in front of a bus that takes everything at once."""
    registry = Registry("bench")
    network = Network("bench", secret_sha256=(hashlib.sha256(SECRET.encode()).hexdigest(),))
    registry.apply(RegistryChange("bench", 0, 1, networks=(network,)))
    collector = Collector(InstantBus(), SystemClock(), run=1)
    listener = make(Shared(registry, collector, Path()))
    await listener.start()
    print(listener.port, flush=True)
    await collector.run()


def main(
    doc: str | None,
    rows: Callable[[float], Sequence[Row]],
    *,
    listener: Callable[[], Coroutine[Any, Any, None]],
    bare: Callable[[], Coroutine[Any, Any, None]],
    load: Callable[[int, float], Coroutine[Any, Any, float]],
) -> None:
    """The command line of a benchmark: all of it, or one of its parts."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=("all", "listener", "bare", "load"), default="all")
    parser.add_argument("port", nargs="?", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=3.0)
    arguments = parser.parse_args()
    if arguments.part == "listener":
        uvloop.run(listener())
    elif arguments.part == "bare":
        uvloop.run(bare())
    elif arguments.part == "load":
        print(uvloop.run(load(arguments.port, arguments.seconds)))
    else:
        for row in rows(arguments.seconds):
            print(f"{row.stage}: {row.measured:,.0f} {row.unit}, {row.ratio or 0:.0%} of {row.baseline}")
