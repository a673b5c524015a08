"""A flood, and what became of the device beside it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final

import msgspec
from websockets.exceptions import ConnectionClosed

from protocols.errors import WireError
from tests.fuzz.listeners.site import Gateway, Place
from tests.fuzz.listeners.speakers import Say
from tests.fuzz.listeners.targets import Listener
from tests.fuzz.trial import BrokenError

ACK_S: Final = 20.0
"""For what comes within milliseconds: long enough for a busy machine, short enough to see a gateway that hangs."""
PAUSE_S: Final = 0.005
"""Of the neighbour, between two messages."""
MOVES: Final = 2
"""Messages of the neighbour that are acknowledged behind each part of a flood: one may have been on its way."""

FAILURES: Final = (AssertionError, OSError, TimeoutError, EOFError, ConnectionClosed, WireError)
"""What a device notices of a gateway that does not do its part."""

Throw = Callable[[Place, Sequence[bytes]], Awaitable[None]]


def said_by(name: str) -> bytes:
    """What all messages of a neighbour begin with."""
    return b'{"neighbour":"%s","seq":' % name.encode()


class Neighbour:
    """Says one message after the other, each once, and notes when it was acknowledged."""

    def __init__(self, name: str, say: Say) -> None:
        self.acknowledged: list[bytes] = []
        self.latencies_ms: list[float] = []
        self._name = name
        self._say = say
        self._moved = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled. Raises what went wrong."""
        for seq in itertools.count(1):
            payload = said_by(self._name) + b"%d}" % seq
            began_s = time.perf_counter()
            async with asyncio.timeout(ACK_S):
                await self._say(payload)
            self.latencies_ms.append((time.perf_counter() - began_s) * 1000)
            self.acknowledged.append(payload)
            self._moved.set()
            await asyncio.sleep(PAUSE_S)

    async def moved(self, messages: int) -> None:
        """So many more are acknowledged."""
        enough = len(self.acknowledged) + messages
        while len(self.acknowledged) < enough:
            self._moved.clear()
            await self._moved.wait()


@contextlib.asynccontextmanager
async def beside(gateway: Gateway, target: Listener, name: str) -> AsyncIterator[Beside]:
    """A neighbour that goes on for as long as this lasts."""
    async with target.speaking(gateway.place) as say:
        neighbour = Neighbour(name, say)
        running = asyncio.create_task(neighbour.run())
        try:
            yield Beside(gateway, target, neighbour, running)
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError, *FAILURES):
                await running


class Beside:
    def __init__(self, gateway: Gateway, target: Listener, neighbour: Neighbour, running: asyncio.Task[None]) -> None:
        self.neighbour = neighbour
        self._gateway = gateway
        self._target = target
        self._running = running

    async def flood(self, inputs: Sequence[bytes], throw: Throw | None = None) -> None:
        """Throws inputs at the listener, and sees that nothing shows. Raises BrokenError with the one that is to blame,
        as far as it does the same alone, else with all of them."""
        try:
            await self._thrown(inputs, throw or self._target.flood)
        except BrokenError as broken:
            for data in inputs if self._gateway.is_alive and not self._running.done() else ():
                try:
                    await self._thrown([data], self._target.flood)
                except BrokenError as again:
                    raise again from broken
            raise

    async def _thrown(self, inputs: Sequence[bytes], throw: Throw) -> None:
        known = len(self._gateway.complaints)
        throwing = asyncio.ensure_future(throw(self._gateway.place, inputs))
        try:
            await asyncio.wait((throwing, self._running), return_when=asyncio.FIRST_COMPLETED)
            if self._running.done():
                self._running.result()  # raises: it does not end by itself
            await throwing
            async with asyncio.timeout(ACK_S):
                await self.neighbour.moved(MOVES)
        except FAILURES as error:
            raise self._broken(inputs, f"{type(error).__name__}: {error}") from error
        finally:
            throwing.cancel()
        if not self._gateway.is_alive:
            raise self._broken(inputs, "the gateway ended")
        if complaints := self._gateway.complaints[known:]:
            raise self._broken(inputs, complaints[0])

    def _broken(self, inputs: Sequence[bytes], what: str) -> BrokenError:
        data = inputs[0] if len(inputs) == 1 else msgspec.msgpack.encode(inputs)
        return BrokenError(self._target.name, data, what, "", several=len(inputs) > 1)
