"""The way between one gateway's site and the cloud: connections that keep the order of their messages, as TCP does, and
everything that happens to them.

While a direction is blocked, what is on its way waits, as for a retransmission; the sender sees nothing but a socket
that fills up. A connection may be reset, for both ends or for one alone, or vanish without a word. What was on its way
before still arrives late, beside the connections that came after.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Literal

from sync.link.errors import DialError, TransportClosedError
from tests.worlds.loop import PROCESS, Process, SimulatedLoop
from tests.worlds.trace import Trace

SOCKET_BYTES: Final = 64 * 1024
"""Under way in one direction before a sender waits."""

DIAL_S: Final = 15.0
"""A connection that does not come about."""

Way = Literal["up", "down"]


class Path:
    """One site's way to the cloud. `listen` accepts connections while the cloud is there; None: nobody listens."""

    def __init__(self, loop: SimulatedLoop, name: str, rng: random.Random, trace: Trace) -> None:
        self.name = name
        self.loop = loop
        self.trace = trace
        self.random = rng
        self.delay_s = (0.002, 0.05)
        self.blocked: set[Way] = set()
        self.listen: Callable[[End], None] | None = None
        self.connections: list[Connection] = []
        self._waiting: list[Callable[[], None]] = []

    async def dial(self, token: str, *, software: str) -> End:
        """The Dial of sync/link/ports.py."""
        deadline_s = self.loop.now + DIAL_S
        await asyncio.sleep(self.one_way_s())
        while self.blocked:
            if self.loop.now >= deadline_s:
                raise DialError("no answer: timed out while connecting")
            await asyncio.sleep(1.0)
        await asyncio.sleep(self.one_way_s())
        if self.listen is None:
            raise DialError("cannot connect: refused")
        connection = Connection(self)
        self.connections = [other for other in self.connections if not other.over]
        self.connections.append(connection)
        self.listen(connection.cloud)
        connection.gateway.owner = PROCESS.get()
        return connection.gateway

    def one_way_s(self) -> float:
        low, high = self.delay_s
        return low + (high - low) * self.random.random()

    def block(self, *ways: Way) -> None:
        self.blocked.update(ways)

    def unblock(self) -> None:
        self.blocked.clear()
        waiting, self._waiting = self._waiting, []
        for go_on in waiting:
            self.loop.outside(self.one_way_s(), go_on)

    def wait(self, go_on: Callable[[], None]) -> None:
        self._waiting.append(go_on)

    def cut(self, told: Literal["both", "gateway", "cloud", "nobody"]) -> None:
        """Every connection ends. Who is not told finds out by itself."""
        for connection in self.connections:
            connection.lost = told == "nobody" or connection.lost
            if told in ("both", "gateway"):
                self.loop.outside(self.one_way_s(), connection.gateway.end, "reset")
            if told in ("both", "cloud"):
                self.loop.outside(self.one_way_s(), connection.cloud.end, "reset")
            connection.lost = True


class Connection:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.lost = False
        """Nothing passes any more."""
        self.gateway = End(self, "up")
        self.cloud = End(self, "down")
        self.gateway.peer, self.cloud.peer = self.cloud, self.gateway

    @property
    def over(self) -> bool:
        return self.gateway.closed and self.cloud.closed


class End:
    """The Transport of sync/link/ports.py, at one end."""

    peer: End

    def __init__(self, connection: Connection, way: Way) -> None:
        self.way: Way = way
        self.closed = False
        self.sent_bytes = 0
        self.owner: Process | None = None
        self._connection = connection
        self._path = connection.path
        self._loop = connection.path.loop
        self._received: deque[bytes] = deque()
        self._arrived = asyncio.Event()
        self._under_way: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._under_way_bytes = 0
        self._moving = False
        self._room = asyncio.Event()

    async def receive(self) -> bytes:
        while not self._received:
            if self.closed:
                raise TransportClosedError("the connection is gone")
            self._arrived.clear()
            await self._arrived.wait()
        return self._received.popleft()

    async def send(self, data: bytes) -> None:
        while self._under_way_bytes > SOCKET_BYTES and not self.closed:
            self._room.clear()
            await self._room.wait()
        if self.closed:
            raise TransportClosedError("the connection is gone")
        self._under_way_bytes += len(data)
        self.sent_bytes += len(data)
        self._put(self.peer.arrive, data)

    async def close(self, code: int, reason: str) -> None:
        if not self.closed:
            self.end("closed")
            self._put(self.peer.end, "closed by the other end")

    def abort(self) -> None:
        self.end("aborted")
        self._put(self.peer.end, "reset by the other end")

    def arrive(self, data: bytes) -> None:
        self.peer.taken(len(data))
        if not self.closed:
            self._received.append(data)
            self._arrived.set()

    def taken(self, size: int) -> None:
        self._under_way_bytes -= size
        self._room.set()

    def end(self, reason: str) -> None:
        if not self.closed:
            self.closed = True
            self._arrived.set()
            self._room.set()

    def _put(self, call: Callable[..., None], *args: Any) -> None:
        self._under_way.append((call, args))
        if not self._moving:
            self._moving = True
            self._loop.outside(self._path.one_way_s(), self._move)

    def _move(self) -> None:
        """The oldest of what is under way arrives, and what follows at once."""
        if self._connection.lost:
            return
        if self.way in self._path.blocked:
            self._path.wait(self._move)
            return
        call, args = self._under_way.popleft()
        call(*args)
        if self._under_way:
            # What was sent meanwhile comes close behind.
            self._loop.outside(self._path.one_way_s() / 8, self._move)
        else:
            self._moving = False


def die(end: End, *, told: bool) -> None:
    """The process of this end is killed: its kernel tells the other end, unless the whole machine is gone."""
    end.closed = True
    if told:
        end._put(end.peer.end, "reset by the other end")
    else:
        end._connection.lost = True
