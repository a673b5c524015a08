"""The HTTP listener: one port, one network."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from edge.credentials import Credentials, Grant, Refusal
from edge.http import Request
from edge.listeners.config import priority_rules
from edge.listeners.http import problems
from edge.listeners.http.config import HttpConfig
from edge.listeners.http.connection import HttpConnection
from edge.listeners.http.mailbox import AWAY_S, Mailboxes
from edge.listeners.http.problems import Problem
from edge.listeners.http.requests import Accepted, Login
from edge.listeners.http.routes import Purpose, Route, route
from edge.listeners.listener import ListenerCounters, Shared
from edge.listeners.priorities import Priorities
from edge.listeners.refusals import Refusals, Refused
from edge.listeners.sockets import address, open_server
from edge.listeners.wheel import DeadlineWheel
from protocols.codecs.media import codec_of_media_type
from protocols.messages import Command, Origin, Priority
from protocols.templates import Name, Templates
from sync.registry import Network

TICK_S: Final = 1.0

DRAIN_S: Final = 10.0
"""At close: for what devices sent to be recorded and answered."""

CLOSE_S: Final = 2.0
"""At close: for devices to take their last answer."""

ORIGINS_MAX: Final = 4096
"""Remembered, so that the requests of a device share one in a batch."""


class HttpListener:
    """Devices' requests of one network, into the collector."""

    kind = "http"
    trouble = ""

    def __init__(self, config: HttpConfig, shared: Shared) -> None:
        self.name = config.name
        self.network_id = config.network
        self.port = config.port
        self.counters = ListenerCounters()
        self.refusals = Refusals(config.name)
        self.wheel = DeadlineWheel()
        self.paused = False
        self._config = config
        self._registry = shared.registry
        self._credentials = Credentials(shared.registry, config.network)
        self._templates = Templates(config.paths)
        self._priorities = Priorities(priority_rules(config.priorities))
        self._collector = shared.collector
        self._attendance = shared.attendance
        self._connections: set[HttpConnection] = set()
        self._origins: dict[tuple[Name, str, str], Origin] = {}
        self._loop = asyncio.get_running_loop()
        self._mailboxes = Mailboxes(self._loop.time)
        self._server: asyncio.Server | None = None
        self._tick: asyncio.TimerHandle | None = None
        self._empty: asyncio.Event = asyncio.Event()

    @property
    def place(self) -> str:
        return address(self._config.host, self.port)

    @property
    def is_listening(self) -> bool:
        return self._server is not None

    async def start(self) -> None:
        """Listens. Raises UserError where the port or the certificate cannot be used."""
        self._server = await open_server(
            self.name, self._config.host, self.port, lambda: HttpConnection(self, self._loop), self._config.tls
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self._collector.attach(self)
        self._turn()

    async def close(self) -> None:
        """Takes no more; answers what came, as far as it is recorded within DRAIN_S; then closes all connections."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        self.pause()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._collector.drained(), DRAIN_S)
        for connection in list(self._connections):
            connection.close()
        self._empty.clear()
        if self._connections:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), CLOSE_S)
        for connection in list(self._connections):
            connection.abort()
        if self._tick is not None:
            self._tick.cancel()
        self._collector.detach(self)
        await server.wait_closed()

    def recheck(self) -> None:
        for connection in list(self._connections):
            grant = connection.grant
            if grant is not None and not self._config.open and not self._credentials.still_holds(grant):
                connection.revoked()

    def way(self, alias_key: str, alias: str) -> HttpWay | None:
        device = (alias_key, alias)
        return HttpWay(self._mailboxes, device) if self._mailboxes.is_here(device) else None

    # for the collector

    def pause(self) -> None:
        self.paused = True
        for connection in self._connections:
            connection.hold()

    def resume(self) -> None:
        if self._server is None:
            return  # closing: nothing more is read
        self.paused = False
        for connection in self._connections:
            connection.release()

    # for connections

    def admit(self, connection: HttpConnection) -> bool:
        self.counters.connections_total += 1
        if len(self._connections) >= self._config.connections_max or self._server is None:
            return False
        self._connections.add(connection)
        self.counters.connections = len(self._connections)
        return True

    def left(self, connection: HttpConnection) -> None:
        self._connections.discard(connection)
        self.counters.connections = len(self._connections)
        if not self._connections:
            self._empty.set()

    def route(self, request: Request) -> Route | Problem:
        path = request.path.removeprefix("/")
        found = route(self._templates, path)
        if found is None:
            return problems.no_path(path, self._config.paths)
        if request.method not in found.methods:
            return problems.wrong_method(request.method, found.methods)
        return found

    def log_in(self, route: Route, login: Login) -> Grant | Problem:
        name = route.name
        if self._config.open:
            return Grant(name.alias_key or self._alias_key(), name.alias, "")
        if login.password is None and login.certified:
            verdict = self._credentials.certified(login.certified)
        else:
            spoken = login.user_name or (f"{name.alias_key}:{name.alias}" if name.alias else "")
            verdict = self._credentials.check(spoken, login.password, address=login.address, now_s=self._loop.time())
        if isinstance(verdict, Refusal):
            self.counters.auth_failures += 1
            return problems.not_allowed(verdict.code, verdict.detail)
        if name.alias and (verdict.alias_key, verdict.alias) != (name.alias_key, name.alias):
            self.counters.auth_failures += 1
            return problems.OTHER_DEVICE
        return verdict

    def record(self, connection: HttpConnection, accepted: Accepted, payload: bytes) -> None:
        grant = accepted.grant
        name = Name(grant.alias_key, grant.alias)
        topic = accepted.request.path.removeprefix("/")
        if accepted.route.purpose is Purpose.RESPONSE:
            origin = Origin(self.network_id, name.alias_key, name.alias, topic, "response", self.name, Priority.EVENT)
        else:
            origin = self._origin(name, topic, self._config.codec or codec_of_media_type(accepted.content_type))
        self._collector.add(origin, [payload], connection, (b"",))

    def poll(self, connection: HttpConnection, grant: Grant) -> None:
        self._mailboxes.poll((grant.alias_key, grant.alias), connection)
        self._attendance.reachable(self.name, self.network_id, grant.alias_key, grant.alias, AWAY_S)

    def leave(self, connection: HttpConnection, grant: Grant) -> None:
        self._mailboxes.leave((grant.alias_key, grant.alias), connection)

    def confirm(self, grant: Grant, command_id: str) -> bool:
        return self._mailboxes.confirm((grant.alias_key, grant.alias), command_id)

    def note(self, connection: HttpConnection, problem: Problem, data: bytes) -> None:
        time_ms = self._collector.clock.wall_ms()
        refused = Refused(time_ms, str(problem.code), problem.detail, connection.peer, connection.user_name, data)
        self.refusals.add(refused, now_s=self._loop.time())

    # inside

    def _alias_key(self) -> str:
        """Of devices that the path does not name."""
        network = self._registry.networks.get(self.network_id)
        return (network or Network(self.network_id)).alias_key

    def _origin(self, name: Name, topic: str, codec: str) -> Origin:
        key = (name, topic, codec)
        origin = self._origins.get(key)
        if origin is None:
            if len(self._origins) >= ORIGINS_MAX:
                self._origins.clear()
            origin = self._origins[key] = Origin(
                self.network_id, name.alias_key, name.alias, topic, codec, self.name, self._priorities.of(topic)
            )
        return origin

    def _turn(self) -> None:
        self._tick = self._loop.call_later(TICK_S, self._turn)
        self.wheel.turn()


class HttpWay:
    """To a device that polls; it has a command when it confirms it, or answers."""

    confirms = True

    def __init__(self, mailboxes: Mailboxes, device: tuple[str, str]) -> None:
        self._mailboxes = mailboxes
        self._device = device

    async def send(self, command: Command) -> None:
        await self._mailboxes.send(self._device, command)


def make_listener(config: HttpConfig, shared: Shared) -> HttpListener:
    return HttpListener(config, shared)
