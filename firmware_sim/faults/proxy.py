"""The link proxy: a TCP forwarder between a client and a server that can be made to fail as networks do.

    client ──▶ proxy ──▶ server        up: from the client to the server
           ◀──       ◀──               down: back

The faults: fault.py.
"""

from __future__ import annotations

import asyncio
import math
import random as system_random
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Final, cast

from firmware_sim.faults.fault import Direction, Fault, Kind, ProxyState

CONNECTIONS_MAX: Final = 256
"""Each holds two sockets and at most two buffers; a site has one link, a fleet of gateways a few hundred."""
BUFFER_BYTES_MAX: Final = 1024 * 1024
"""What one direction may hold back while it delays or while the other side is slow; then it reads no more."""
CONNECT_S: Final = 5.0
"""The server is on the same machine or in the same room."""
THROTTLED_BYTES_MAX: Final = 32 * 1024
"""What one direction holds back while it is throttled: a modem has little memory, and what waits in it is late."""
THROTTLED_PIECE_S: Final = 0.02
"""Throttled, bytes go on in pieces of this length of time, so that connections share the line."""
LOSS_S: Final = (0.2, 2.0)
"""How long loss lets a connection stand still: TCP sends again after 0.2 s, and waits twice as long each time."""
RESETS_SHARE: Final = 0.25
"""Of losses, those that end the connection."""
_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER of zero seconds: close sends RST and not FIN."""


class LinkProxy:
    """Listens on loopback. `start`, then `set_fault` at any time, then `close`."""

    def __init__(
        self, target_host: str, target_port: int, *, random: Callable[[], float] = system_random.random
    ) -> None:
        """`random` gives numbers from 0 to below 1."""
        self.target = (target_host, target_port)
        """Where new connections go."""
        self.random = random
        self.acting = Fault()
        """What connections suffer at this moment: that which is set, or what it has come to by now."""
        self.losses = 0
        self._fault = Fault()
        self._cuts = 0
        self._flap: asyncio.TimerHandle | None = None
        self._line_free_s = {Direction.UP: 0.0, Direction.DOWN: 0.0}
        self._ends_s: float | None = None
        self._end: asyncio.TimerHandle | None = None
        self._server: asyncio.Server | None = None
        self._pairs: set[_Pair] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._accepted = 0
        self.bytes = {Direction.UP: 0, Direction.DOWN: 0}
        self.bytes_swallowed = 0

    @property
    def fault(self) -> Fault:
        return self._fault

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """The port it listens on. Raises OSError if that is taken."""
        self._server = await asyncio.get_running_loop().create_server(lambda: _Side(self._accept), host, port)
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    def set_fault(self, fault: Fault) -> None:
        """Replaces the one that was set."""
        self._fault = fault
        for timer in (self._end, self._flap):
            if timer is not None:
                timer.cancel()
        self._end = self._ends_s = self._flap = None
        if fault.seconds is not None:
            loop = asyncio.get_running_loop()
            self._ends_s = loop.time() + fault.seconds
            self._end = loop.call_at(self._ends_s, self.set_fault, Fault())
        if fault.kind is Kind.FLAP:
            self._turn(Fault(Kind.CUT))
        else:
            self._act(fault)

    def take_line(self, size: int, direction: Direction) -> None:
        """Throttled: keeps the line busy for so many bytes."""
        free_s = max(self._line_free_s[direction], asyncio.get_running_loop().time())
        self._line_free_s[direction] = free_s + size / self.acting.bytes_per_s

    def line_free_s(self, direction: Direction) -> float:
        return self._line_free_s[direction]

    def state(self) -> ProxyState:
        now_s = asyncio.get_running_loop().time()
        return ProxyState(
            self._fault.kind,
            self._fault.direction,
            None if self._ends_s is None else max(self._ends_s - now_s, 0.0),
            "" if self._fault.kind is Kind.NONE else self._fault.by,
            len(self._pairs),
            self._accepted,
            self.bytes[Direction.UP],
            self.bytes[Direction.DOWN],
            self.bytes_swallowed,
            self._cuts,
            self.losses,
        )

    async def close(self) -> None:
        for timer in (self._end, self._flap):
            if timer is not None:
                timer.cancel()
        if self._server is not None:
            self._server.close()
        for task in list(self._opening):
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)
        for pair in list(self._pairs):
            pair.reset()
        if self._server is not None:
            await self._server.wait_closed()

    def _turn(self, now: Fault) -> None:
        """Flapping: this now, the other one after a while."""
        other = Fault() if now.kind is Kind.CUT else Fault(Kind.CUT)
        self._flap = asyncio.get_running_loop().call_later(self.random() * self._fault.every_s, self._turn, other)
        self._act(now)

    def _act(self, fault: Fault) -> None:
        before, self.acting = self.acting, fault
        self._cuts += fault.kind is Kind.CUT
        for pair in list(self._pairs):
            pair.change(before, fault)

    def _accept(self, client: _Side) -> None:
        self._accepted += 1
        if self.acting.kind is Kind.CUT or len(self._pairs) >= CONNECTIONS_MAX:
            client.reset()
            return
        pair = _Pair(self, client, self._pairs.discard)
        self._pairs.add(pair)
        task = asyncio.get_running_loop().create_task(self._open(pair))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self, pair: _Pair) -> None:
        try:
            async with asyncio.timeout(CONNECT_S):
                await asyncio.get_running_loop().create_connection(lambda: _Side(pair.opened), *self.target)
        except OSError:  # TimeoutError is one
            pair.reset()


class _Side(asyncio.Protocol):
    """One socket of a pair."""

    def __init__(self, made: Callable[[_Side], None]) -> None:
        self._made = made
        self.transport: asyncio.Transport | None = None
        self.onward: _Way | None = None
        """Where what it receives goes."""
        self.inward: _Way | None = None
        """Where what it sends comes from."""
        self.lost: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have all of the interface, but are no subclasses of it.
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=BUFFER_BYTES_MAX)
        self._made(self)

    def data_received(self, data: bytes) -> None:
        if self.onward is not None:
            self.onward.take(data)

    def eof_received(self) -> bool:
        if self.onward is not None:
            self.onward.end()
        return True  # the other way goes on

    def pause_writing(self) -> None:
        if self.inward is not None:
            self.inward.hold(True)

    def resume_writing(self) -> None:
        if self.inward is not None:
            self.inward.hold(False)

    def connection_lost(self, error: Exception | None) -> None:
        if self.lost is not None:
            self.lost()

    def reset(self) -> None:
        if self.transport is None:
            return
        raw: socket.socket | None = self.transport.get_extra_info("socket")
        if raw is not None and raw.fileno() >= 0:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()


class _Way:
    """One direction of a pair: reads from `source`, writes to `sink`, suffers the fault."""

    def __init__(self, proxy: LinkProxy, direction: Direction, source: _Side) -> None:
        self._proxy = proxy
        self._direction = direction
        self._source = source
        self._sink: asyncio.Transport | None = None
        self._waiting: deque[tuple[float, bytes | None]] = deque()
        """When each piece is due, and the piece; None: the end of the stream. One that is due sooner than the one
        before it waits for that: bytes never overtake each other."""
        self._waiting_bytes = 0
        self._due: asyncio.TimerHandle | None = None
        self._held = False
        self._stands = False
        self._swallowed = False
        self._is_reading = True

    @property
    def is_spoilt(self) -> bool:
        """True if bytes are missing from it: the connection can only be reset."""
        return self._swallowed

    def connect(self, sink: asyncio.Transport) -> None:
        self._sink = sink
        self.move()

    def take(self, data: bytes) -> None:
        fault = self._proxy.acting
        kind = fault.at(self._direction)
        if kind is Kind.BLACK_HOLE:
            self._swallowed = True
            self._proxy.bytes_swallowed += len(data)
            return
        self._put(data, fault.delay_ms / 1000 if kind is Kind.DELAY else 0.0)

    def end(self) -> None:
        fault = self._proxy.acting
        kind = fault.at(self._direction)
        if kind is Kind.BLACK_HOLE:
            self._swallowed = True
            return
        self._put(None, fault.delay_ms / 1000 if kind is Kind.DELAY else 0.0)

    def hold(self, held: bool) -> None:
        """The sink takes no more, or takes again."""
        self._held = held
        self.move()

    def stand(self, stands: bool) -> None:
        """The connection stands still, or goes on."""
        self._stands = stands
        self.move()

    def move(self) -> None:
        """Gives on what is due, unless something holds it back; reads on if there is room."""
        loop, kind = asyncio.get_running_loop(), self._proxy.acting.at(self._direction)
        stalled, throttled = kind is Kind.STALL or self._stands, kind is Kind.THROTTLE
        while self._sink is not None and self._waiting and not self._held and not stalled:
            due_s, data = self._waiting[0]
            if throttled:
                due_s = max(due_s, self._proxy.line_free_s(self._direction))
            if due_s > loop.time():
                self._wake_at(due_s)
                break
            self._waiting.popleft()
            if data is None:
                if self._sink.can_write_eof():
                    self._sink.write_eof()
                continue
            if throttled:
                data = self._first_piece(due_s, data)
            self._waiting_bytes -= len(data)
            self._proxy.bytes[self._direction] += len(data)
            self._sink.write(data)
        self._read(not stalled and self._waiting_bytes < (THROTTLED_BYTES_MAX if throttled else BUFFER_BYTES_MAX))

    def close(self) -> None:
        if self._due is not None:
            self._due.cancel()
        self._waiting.clear()
        self._sink = None

    def _put(self, data: bytes | None, delay_s: float) -> None:
        self._waiting.append((asyncio.get_running_loop().time() + delay_s, data))
        self._waiting_bytes += len(data or b"")
        self.move()

    def _first_piece(self, due_s: float, data: bytes) -> bytes:
        """As much of it as the line takes now; the rest waits."""
        size = max(1, int(self._proxy.acting.bytes_per_s * THROTTLED_PIECE_S))
        if len(data) > size:
            self._waiting.appendleft((due_s, data[size:]))
        self._proxy.take_line(min(size, len(data)), self._direction)
        return data[:size]

    def _wake_at(self, due_s: float) -> None:
        if self._due is not None:
            self._due.cancel()
        self._due = asyncio.get_running_loop().call_at(due_s, self.move)

    def _read(self, wanted: bool) -> None:
        transport = self._source.transport
        if transport is None or transport.is_closing() or wanted == self._is_reading:
            return
        self._is_reading = wanted
        if wanted:
            transport.resume_reading()
        else:
            transport.pause_reading()


class _Pair:
    """A client's connection and the server's that answers it."""

    def __init__(self, proxy: LinkProxy, client: _Side, closed: Callable[[_Pair], None]) -> None:
        self._proxy = proxy
        self._client = client
        self._server: _Side | None = None
        self._closed = closed
        self._over = False
        self._loss: asyncio.TimerHandle | None = None
        self._up = _Way(proxy, Direction.UP, client)
        self._ways = [self._up]
        client.onward = self._up
        client.lost = self.reset
        self._up.move()
        self._await_loss()

    def opened(self, server: _Side) -> None:
        """The server's side stands."""
        if self._over:
            server.reset()
            return
        assert server.transport is not None
        assert self._client.transport is not None
        self._server = server
        down = _Way(self._proxy, Direction.DOWN, server)
        self._ways.append(down)
        server.onward, server.inward, server.lost = down, self._up, self.reset
        self._client.inward = down
        self._up.connect(server.transport)
        down.connect(self._client.transport)

    def change(self, before: Fault, now: Fault) -> None:
        """Another fault is set."""
        healed = before.kind is Kind.BLACK_HOLE and now != before
        if now.kind is Kind.CUT or (healed and any(way.is_spoilt for way in self._ways)):
            self.reset()
            return
        self._go_on()

    def _await_loss(self) -> None:
        acting = self._proxy.acting
        if acting.kind is Kind.LOSS and not self._over:
            wait_s = -math.log(1.0 - self._proxy.random()) * acting.every_s
            self._loss = asyncio.get_running_loop().call_later(wait_s, self._lose)

    def _lose(self) -> None:
        self._proxy.losses += 1
        if self._proxy.random() < RESETS_SHARE:
            self.reset()
            return
        for way in self._ways:
            way.stand(True)
        least_s, most_s = LOSS_S
        still_s = least_s + self._proxy.random() * (most_s - least_s)
        self._loss = asyncio.get_running_loop().call_later(still_s, self._go_on)

    def _go_on(self) -> None:
        if self._loss is not None:
            self._loss.cancel()
        for way in self._ways:
            way.stand(False)
        self._await_loss()

    def reset(self) -> None:
        """Both sides, at once."""
        if self._over:
            return
        self._over = True
        if self._loss is not None:
            self._loss.cancel()
        for way in self._ways:
            way.close()
        for side in (self._client, self._server):
            if side is not None:
                side.reset()
        self._closed(self)
