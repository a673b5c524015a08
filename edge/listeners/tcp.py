"""The TCP listener: devices that send frames connect here, or the gateway connects to one."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from typing import Final, cast

import msgspec

from edge.credentials import Credentials, Refusal
from edge.listeners.certificate import name_in_certificate
from edge.listeners.frames import FrameLine, rules_of
from edge.listeners.line_protocol import LineProtocol
from edge.listeners.lines import LineHub
from edge.listeners.listener import Listener, Shared
from edge.listeners.sockets import address, client_context, open_server, peer_of, watch_peer
from edge.listeners.stream_config import TcpConfig
from protocols.limits import PAYLOAD_BYTES_MAX
from protocols.templates import NOBODY, Name

FRAME_TICKS: Final = 30
"""Seconds for the rest of a frame to come, and for a connection to name its device: three losses of a packet on a slow
link, and no more."""

CLOSE_S: Final = 2.0
"""At close: for devices to take their last bytes."""

CLOSE_TICKS: Final = 5
"""Seconds for a device to take its last bytes before the connection is cut."""

WRITE_BYTES_MAX: Final = 2 * PAYLOAD_BYTES_MAX
"""Unsent bytes, beyond what the kernel holds: two of the largest commands, or 100,000 answers that nobody reads."""

CONNECT_S: Final = 10.0
RETRY_FIRST_S: Final = 1.0
RETRY_MAX_S: Final = 60.0
"""Between attempts to connect: a device that restarts is back within a minute of being there."""


class TurnedAway(msgspec.Struct, frozen=True):
    """Why a connection is not taken."""

    code: str
    detail: str


class TcpConnection(LineProtocol):
    """One connection, a Watched of the wheel."""

    def __init__(self, hub: TcpListener | TcpDialer, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._hub = hub
        self._seen = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        hub = self._hub
        host, peer = peer_of(transport.get_extra_info("peername"))
        transport.set_write_buffer_limits(high=WRITE_BYTES_MAX)  # type: ignore[attr-defined]
        hub.opened(self)
        verdict = hub.admit(transport, host)
        line = FrameLine(hub, self, peer, None if isinstance(verdict, TurnedAway) else verdict, self._loop)
        if isinstance(verdict, TurnedAway):
            line.refuse(verdict.code, verdict.detail, b"")
            return
        watch_peer(transport.get_extra_info("socket"))
        self._seen = hub.wheel.now
        hub.joined(line)
        hub.wheel.watch(self, FRAME_TICKS)
        self._begin(line)

    def data_received(self, data: bytes) -> None:
        if self._line is not None and self._line.is_open:
            self._seen = self._hub.wheel.now
            self._line.receive(data)

    def eof_received(self) -> bool:
        """It is answered all the same; over TLS, the transport ends with it."""
        if self._line is None or not self._line.is_open or self._transport.get_extra_info("sslcontext") is not None:
            return False
        self._line.finish()
        return True

    def pause_writing(self) -> None:
        if self._line is not None:
            self._line.refuse("slow_reader", f"the device leaves more than {WRITE_BYTES_MAX:,} bytes unread", b"")
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._hub.wheel.forget(self)
        if self._line is not None:
            self._line.end()
            self._hub.left(self._line)
        super().connection_lost(exc)

    # Carrier

    def resume_reading(self) -> None:
        self._seen = self._hub.wheel.now
        super().resume_reading()

    def cut(self) -> None:
        super().cut()
        self._hub.wheel.watch(self, CLOSE_TICKS)

    # Watched

    def check(self) -> int:
        line, hub = self._line, self._hub
        if line is None or not line.is_open:
            self._transport.abort()
            return 0
        if line.is_held:
            self._seen = hub.wheel.now  # its bytes wait for us to read them
        silent = hub.wheel.now - self._seen
        if silent >= FRAME_TICKS and (line.held_bytes or line.name is None):
            what = "of a frame, and then nothing" if line.held_bytes else "and no device named"
            line.refuse("half_frame" if line.held_bytes else "login", f"{silent} s {what}", b"")
            return CLOSE_TICKS
        if hub.silence_ticks and silent > hub.silence_ticks:
            line.refuse("silent", f"nothing came for {hub.silence_ticks} s", b"")
            return CLOSE_TICKS
        return FRAME_TICKS if not hub.silence_ticks else min(FRAME_TICKS, hub.silence_ticks)

    def abort(self) -> None:
        self._transport.abort()


class TcpListener(LineHub):
    """Devices' connections to one port."""

    kind = "tcp"

    def __init__(self, config: TcpConfig, shared: Shared) -> None:
        super().__init__(config, shared, rules_of(config, config.framing, silence_counts=False, login=config.login))
        self.host = config.host
        self.port = config.port
        self.silence_ticks = config.silence_s
        self._config = config
        self._credentials = Credentials(shared.registry, config.network)
        self._connections: set[TcpConnection] = set()
        self._server: asyncio.Server | None = None

    @property
    def place(self) -> str:
        return address(self.host, self.port)

    async def start(self) -> None:
        """Listens. Raises UserError where the port or the certificate cannot be used."""
        loop = asyncio.get_running_loop()
        self._server = await open_server(
            self.name, self.host, self.port, lambda: TcpConnection(self, loop), self._config.tls
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self._open()

    async def close(self) -> None:
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        await self._drain()
        for connection in self._connections:
            connection.cut()
        if self._connections:
            await asyncio.wait([connection.ended for connection in self._connections], timeout=CLOSE_S)
        for connection in list(self._connections):
            connection.abort()
        self._shut()
        await server.wait_closed()

    def opened(self, connection: TcpConnection) -> None:
        self._connections.add(connection)
        connection.ended.add_done_callback(lambda _: self._connections.discard(connection))

    def admit(self, transport: asyncio.BaseTransport, host: str) -> Name | TurnedAway | None:
        """Who it is; None: its first frame says so."""
        if len(self.lines) >= self._config.connections_max or not self.is_listening:
            return TurnedAway("connection_limit", "as many connections as this listener may have")
        if self._config.tls_client_ca:
            grant = self._credentials.certified(name_in_certificate(transport))
            if isinstance(grant, Refusal):
                self.counters.auth_failures += 1
                return TurnedAway(grant.code, grant.detail)
            return Name(grant.alias_key, grant.alias)
        return _name_of(self._config, self, host)


class TcpDialer(LineHub):
    """A device that the gateway connects to, and connects to again."""

    kind = "tcp"
    port = 0

    def __init__(self, config: TcpConfig, shared: Shared) -> None:
        super().__init__(config, shared, rules_of(config, config.framing, silence_counts=False, login=config.login))
        self.silence_ticks = config.silence_s
        self._config = config
        self._context: ssl.SSLContext | None = None
        self._connection: TcpConnection | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def place(self) -> str:
        return self._config.connect

    async def start(self) -> None:
        """Begins to connect; a device that is not there is waited for. Raises UserError where a certificate cannot be
        used."""
        if self._config.connect_tls:
            self._context = client_context(self.name, "connect_ca", self._config.connect_ca, self._config.tls)
        self._open()
        self.trouble = "connecting"
        self._task = asyncio.create_task(self._run(), name=f"listener {self.name}")

    async def close(self) -> None:
        if self._task is None:
            return
        task, self._task = self._task, None
        await self._drain()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        connection = self._connection
        if connection is not None and not connection.ended.done():
            connection.cut()
            await asyncio.wait([connection.ended], timeout=CLOSE_S)
            connection.abort()
        self._shut()

    def opened(self, connection: TcpConnection) -> None:
        self._connection = connection

    def admit(self, _transport: asyncio.BaseTransport, host: str) -> Name | TurnedAway | None:
        return _name_of(self._config, self, host)

    async def _run(self) -> None:
        """Until cancelled."""
        wait_s = RETRY_FIRST_S
        while True:
            self.trouble = await self._connected()
            wait_s = RETRY_FIRST_S if self._connection is not None else min(2 * wait_s, RETRY_MAX_S)
            self._connection = None
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))

    async def _connected(self) -> str:
        """One connection from its beginning to its end; why there is none now."""
        loop = asyncio.get_running_loop()
        host, port = self._config.peer
        try:
            async with asyncio.timeout(CONNECT_S):
                _, connection = await loop.create_connection(
                    lambda: TcpConnection(self, loop),
                    host,
                    port,
                    ssl=self._context,
                    server_hostname=host if self._context is not None else None,
                )
        except TimeoutError:
            return f"{self.place} does not answer"
        except ssl.SSLError as error:
            return f"{self.place}: {error.reason or error}"
        except OSError as error:
            return f"cannot connect to {self.place}: {error.strerror or error}"
        self.trouble = ""
        await asyncio.wait([connection.ended])  # not by itself: to be cancelled must not end the future
        return f"{self.place} ended the connection"


def make_listener(config: TcpConfig, shared: Shared) -> Listener:
    return TcpDialer(config, shared) if config.connect else TcpListener(config, shared)


def _name_of(config: TcpConfig, hub: LineHub, host: str) -> Name | None:
    if hub.rules.device != NOBODY:
        return hub.rules.device
    if config.login:
        return None
    return Name("ip", host) if config.identity == "address" else hub.payload_name()
