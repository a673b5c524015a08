"""The HTTP listener: one port, one network."""

from __future__ import annotations

import asyncio
from typing import Final

from edge.credentials import Credentials, Grant, Refusal
from edge.http import Request
from edge.listeners.config import priority_rules
from edge.listeners.connections import ConnectionHub
from edge.listeners.http import problems
from edge.listeners.http.config import HttpConfig
from edge.listeners.http.connection import HttpConnection
from edge.listeners.http.mailbox import AWAY_S, Mailboxes
from edge.listeners.http.problems import Problem
from edge.listeners.http.requests import Accepted, Login
from edge.listeners.http.routes import Purpose, Route, route
from edge.listeners.listener import Shared
from edge.listeners.priorities import Priorities
from edge.listeners.refusals import Refused
from protocols.codecs.media import codec_of_media_type
from protocols.messages import Command, Origin, Priority
from protocols.templates import Name, Templates
from sync.registry import Network

ORIGINS_MAX: Final = 4096
"""Remembered, so that the requests of a device share one in a batch."""


class HttpListener(ConnectionHub[HttpConnection]):
    """Devices' requests of one network, into the collector."""

    kind = "http"

    def __init__(self, config: HttpConfig, shared: Shared) -> None:
        super().__init__(config, shared)
        self._config = config
        self._registry = shared.registry
        self._credentials = Credentials(shared.registry, config.network)
        self._templates = Templates(config.paths)
        self._priorities = Priorities(priority_rules(config.priorities))
        self._origins: dict[tuple[Name, str, str], Origin] = {}
        self._loop = asyncio.get_running_loop()
        self._mailboxes = Mailboxes(self._loop.time)

    def recheck(self) -> None:
        for connection in list(self.connections):
            grant = connection.grant
            if grant is not None and not self._config.open and not self._credentials.still_holds(grant):
                connection.revoked()

    def way(self, alias_key: str, alias: str) -> HttpWay | None:
        device = (alias_key, alias)
        return HttpWay(self._mailboxes, device) if self._mailboxes.is_here(device) else None

    # for connections

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

    def spend(self, connection: HttpConnection, grant: Grant) -> bool:
        device, now = (grant.alias_key, grant.alias or connection.address), self.wheel.now
        return self.rates.has_room(device, now) and self.rates.spend(device, 1, now)

    def record(self, connection: HttpConnection, accepted: Accepted, payload: bytes) -> None:
        grant = accepted.grant
        name = Name(grant.alias_key, grant.alias)
        topic = accepted.request.path.removeprefix("/")
        if accepted.route.purpose is Purpose.RESPONSE:
            origin = Origin(self.network_id, name.alias_key, name.alias, topic, "response", self.name, Priority.EVENT)
        else:
            origin = self._origin(name, topic, self._config.codec or codec_of_media_type(accepted.content_type))
        self.collector.add(origin, [payload], connection, (b"",))

    def poll(self, connection: HttpConnection, grant: Grant) -> None:
        self._mailboxes.poll((grant.alias_key, grant.alias), connection)
        self.attendance.reachable(self.name, self.network_id, grant.alias_key, grant.alias, AWAY_S)

    def leave(self, connection: HttpConnection, grant: Grant) -> None:
        self._mailboxes.leave((grant.alias_key, grant.alias), connection)

    def confirm(self, grant: Grant, command_id: str) -> bool:
        return self._mailboxes.confirm((grant.alias_key, grant.alias), command_id)

    def note(self, connection: HttpConnection, problem: Problem, data: bytes) -> None:
        time_ms = self.collector.clock.wall_ms()
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

    # ConnectionHub

    def _protocol(self, loop: asyncio.AbstractEventLoop) -> asyncio.Protocol:
        return HttpConnection(self, loop)


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
