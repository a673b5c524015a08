"""The cloud as production wires it (cloud/app.py)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

from protocols.block import open_block
from protocols.messages import Command, Lane
from sync.link.frames import CommandProgress
from sync.link.server import GatewaySession, serve
from sync.registry import RegistryChange
from tests.worlds.clocks import true_ms
from tests.worlds.devices import Name, name_of
from tests.worlds.gateway import Gateway
from tests.worlds.laws import Laws
from tests.worlds.loop import Process, SimulatedLoop
from tests.worlds.network import End, die
from tests.worlds.trace import Trace


class Cloud:
    def __init__(
        self, loop: SimulatedLoop, rng: random.Random, laws: Laws, trace: Trace, gateways: list[Gateway]
    ) -> None:
        self.loop = loop
        self.random = rng
        self.trace = trace
        self.gateways = gateways
        self.stored: dict[str, dict[tuple[int, int], Name]] = {gateway.name: {} for gateway in gateways}
        self.process: Process | None = None
        self.lives = 0
        self.ends: list[End] = []
        for gateway in gateways:
            stored = self.stored[gateway.name]
            gateway.book.has = lambda epoch, first, end, stored=stored: all(
                (epoch, seq) in stored for seq in range(first, end)
            )

    def boot(self) -> None:
        if self.process is None:
            self.lives += 1
            self.process = Process(self.loop, f"cloud.{self.lives}", lambda: 0.001)
            self.trace.add("cloud", "up")
            for gateway in self.gateways:
                gateway.path.listen = lambda end, name=gateway.name: self._accept(name, end)

    def crash(self, *, power: bool, back_s: float) -> None:
        process = self.process
        if process is None:
            return
        self.process = None
        process.kill()
        self.trace.add("cloud", "killed")
        for gateway in self.gateways:
            gateway.path.listen = None
        for end in self.ends:
            die(end, told=not power)
        self.ends.clear()
        self.loop.outside(back_s, self.boot)

    def _accept(self, name: str, end: End) -> None:
        assert self.process is not None
        self.ends = [other for other in self.ends if not other.closed]
        self.ends.append(end)
        self.process.run(self._serve(name, end))

    async def _serve(self, name: str, end: End) -> None:
        session = GatewaySession(
            project_id="p",
            gateway_id=name,
            intake=_Intake(self, name),
            registry=_NoRegistry(),
            commands=_NoCommands(),
            wall_ms=lambda: true_ms(self.loop.now),
        )
        await serve(end, session)


class _Intake:
    def __init__(self, cloud: Cloud, name: str) -> None:
        self._cloud = cloud
        self._name = name

    async def accept(self, lane: Lane, blocks: list[bytes]) -> None:
        await asyncio.sleep(0.001 + 0.01 * self._cloud.random.random())
        stored = self._cloud.stored[self._name]
        for block in blocks:
            head, batches = open_block(block)
            seq = head.first_seq
            for batch in batches:
                for payload in batch.payloads:
                    stored[head.epoch, seq] = name_of(payload)
                    seq += 1


class _NoRegistry:
    async def changes(self, base_revision: int) -> AsyncIterator[RegistryChange]:
        await asyncio.Event().wait()
        return
        yield


class _NoCommands:
    async def commands(self) -> AsyncIterator[Command]:
        await asyncio.Event().wait()
        return
        yield

    async def progress(self, progress: CommandProgress) -> None:
        raise AssertionError("nobody sends commands")
