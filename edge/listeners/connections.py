"""What listeners whose devices connect to a port share: the port, its connections, and how they end."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from typing import Final, Generic, Protocol, TypeVar

from edge.listeners.config import TlsFiles
from edge.listeners.listener import ListenerCounters, Shared
from edge.listeners.rates import Rates
from edge.listeners.refusals import Refusals
from edge.listeners.sockets import address, open_server
from edge.listeners.wheel import DeadlineWheel

TICK_S: Final = 1.0

DRAIN_S: Final = 10.0
"""At close: for what devices sent to be recorded and acknowledged."""

CLOSE_S: Final = 2.0
"""At close: for devices to take their last bytes."""


class PortConfig(Protocol):
    """What the configuration says of the port."""

    @property
    def name(self) -> str: ...
    @property
    def network(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def connections_max(self) -> int: ...
    @property
    def messages_per_s_max(self) -> int: ...
    @property
    def tls(self) -> TlsFiles | None: ...


class Connection(Protocol):
    def hold(self) -> None:
        """Stops reading, because too much waits."""
        ...

    def release(self) -> None: ...

    def close(self) -> None:
        """Writes what is left to write, then ends."""
        ...

    def abort(self) -> None: ...


C = TypeVar("C", bound=Connection)


class ConnectionHub(ABC, Generic[C]):
    """The part of a Listener that is the same for MQTT and HTTP. A `port` of 0 is a free one, known after `start`."""

    trouble = ""

    def __init__(self, config: PortConfig, shared: Shared) -> None:
        self.name = config.name
        self.network_id = config.network
        self.host = config.host
        self.port = config.port
        self.collector = shared.collector
        self.attendance = shared.attendance
        self.counters = ListenerCounters()
        self.refusals = Refusals(config.name)
        self.wheel = DeadlineWheel()
        self.rates = Rates(config.messages_per_s_max)
        self.paused = False
        self.connections: set[C] = set()
        self._tls = config.tls
        self._connections_max = config.connections_max
        self._server: asyncio.Server | None = None
        self._tick: asyncio.TimerHandle | None = None
        self._empty: asyncio.Event = asyncio.Event()

    @property
    def place(self) -> str:
        return address(self.host, self.port)

    @property
    def is_listening(self) -> bool:
        return self._server is not None

    async def start(self) -> None:
        """Listens. Raises UserError where the port or the certificate cannot be used."""
        loop = asyncio.get_running_loop()
        self._server = await open_server(self.name, self.host, self.port, lambda: self._protocol(loop), self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        self.collector.attach(self)
        self._turn(loop)

    async def close(self) -> None:
        """Takes no more; answers what came, as far as it is recorded within DRAIN_S; then closes all connections."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        self.pause()
        await self._drain(DRAIN_S)
        for connection in list(self.connections):
            self._part(connection)
        self._empty.clear()
        if self.connections:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), CLOSE_S)
        for connection in list(self.connections):
            connection.abort()
        if self._tick is not None:
            self._tick.cancel()
        await self._end()
        self.collector.detach(self)
        await server.wait_closed()

    # for the collector

    def pause(self) -> None:
        self.paused = True
        for connection in self.connections:
            connection.hold()

    def resume(self) -> None:
        if self._server is None:
            return  # closing: nothing more is read
        self.paused = False
        for connection in self.connections:
            connection.release()

    # for connections

    def admit(self, connection: C) -> bool:
        self.counters.connections_total += 1
        if len(self.connections) >= self._connections_max or self._server is None:
            return False
        self.connections.add(connection)
        self.counters.connections = len(self.connections)
        return True

    def left(self, connection: C) -> None:
        self.connections.discard(connection)
        self.counters.connections = len(self.connections)
        if not self.connections:
            self._empty.set()

    # for the kinds

    @abstractmethod
    def _protocol(self, loop: asyncio.AbstractEventLoop) -> asyncio.Protocol:
        """Of a new connection."""

    def _part(self, connection: C) -> None:
        """From a connection, as the listener closes."""
        connection.close()

    async def _drain(self, within_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.collector.drained(), within_s)

    async def _end(self) -> None:
        """Nobody is connected any more; what is recorded now still counts."""

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """Once a second."""
        self._tick = loop.call_later(TICK_S, self._turn, loop)
        self.wheel.turn()
        self.rates.turn(self.wheel.now)
