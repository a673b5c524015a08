"""Listeners for frames over a bus in memory, and clients that see every byte."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from edge.listeners.collector import Collector
from edge.listeners.listener import Listener, Shared
from protocols.messages import Command
from sync.registry import Network, Registry, RegistryChange
from tests.edge.listeners.memory_bus import MemoryBus, SetClock

ANSWER_S = 10.0
"""For what comes within milliseconds: long enough for a busy machine, short enough to see a test that hangs."""

Made_co = TypeVar("Made_co", bound=Listener, covariant=True)
Made = TypeVar("Made", bound=Listener)


class Makes(Protocol[Made_co]):
    def __call__(self, config: Any, shared: Shared) -> Made_co: ...


class Attended:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, ...]] = []

    def connected(self, *name: str) -> None:
        self.told.append(name)

    def disconnected(self, *name_and_reason: str) -> None:
        self.told.append(name_and_reason)

    def reachable(self, listener: str, network_id: str, alias_key: str, alias: str, for_s: float) -> None:
        self.told.append((listener, network_id, alias_key, alias))


class FrameWorld:
    """Network `quay`, whose alias key is `serial`."""

    def __init__(self, folder: Path) -> None:
        self.bus = MemoryBus()
        self.collector = Collector(self.bus, SetClock(), run=5)
        registry = Registry("demo")
        registry.apply(RegistryChange("demo", 0, 1, networks=(Network("quay"),)))
        self.attendance = Attended()
        self.shared = Shared(registry, self.collector, folder, attendance=self.attendance)

    @contextlib.asynccontextmanager
    async def listening(self, make: Makes[Made], config: Any) -> AsyncIterator[Made]:
        listener = make(config, self.shared)
        task = asyncio.create_task(self.collector.run())
        await listener.start()
        try:
            yield listener
        finally:
            self.bus.release()
            async with asyncio.timeout(ANSWER_S):
                await listener.close()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    @property
    def payloads(self) -> list[bytes]:
        return [record.payload for record in self.bus.records]

    async def came(self, count: int) -> list[bytes]:
        """The payloads, once there are so many."""
        await until(lambda: len(self.payloads) >= count)
        return self.payloads


async def until(condition: Callable[[], bool]) -> None:
    """For what no event tells, such as a count of the listener."""
    async with asyncio.timeout(ANSWER_S):
        while not condition():
            await asyncio.sleep(0.002)


def restart(payload: bytes = b"now") -> Command:
    return Command("c1", 1, "restart", payload, 4_000_000_000_000)


async def client(*words: str, data: bytes = b"", waits: bool = False) -> bytes:
    """A program that speaks for a device, to its end: what it was answered. `waits`: for an answer of one line, before
    its input ends, which over TLS ends both directions."""
    process = await asyncio.create_subprocess_exec(
        *words, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    line = b""
    async with asyncio.timeout(ANSWER_S):
        if waits and process.stdin is not None and process.stdout is not None:
            process.stdin.write(data)
            line, data = await process.stdout.readline(), b""
        output, errors = await process.communicate(data)
    assert process.returncode == 0, errors
    return line + output
