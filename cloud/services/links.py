"""The gateways' links: who may connect, where their blocks go, and what of the registry they are sent."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Final

import msgspec

from cloud.db import gateways, sources
from cloud.db.database import Database, DatabaseError
from cloud.db.errors import NotFoundError
from cloud.registry_feed import RegistryFeed
from cloud.services.commands import Commands
from cloud.services.configurations import GatewayConfigurations
from cloud.services.credit import CreditWatch
from cloud.services.intake import GatewayBooks, GatewayCredit, GatewayIntake
from cloud.services.receiver import Receiver
from cloud.services.standings import GatewayName, Standings
from sync.link.asgi import LinkApp, RejectedError
from sync.link.server import GatewaySession
from sync.link.tokens import Claims, TokenError, WrongKeyError, claimed, public_key, verify
from sync.registry import Blueprint, RegistryChange
from tidegate.logs import get_logger
from tidegate.pause import pause

SEEN_EVERY_S: Final = 15.0
"""How exact *last seen* of a connected gateway is; one statement a project for all of them."""
AWAY_RETRY_S: Final = 5.0
"""When a gateway is told to come back while the database is away."""
STOPPING_RETRY_S: Final = 1.0

_log = get_logger("links")


class Links:
    """All gateways that are connected to this process."""

    def __init__(
        self,
        receiver: Receiver,
        feed: RegistryFeed,
        database: Database,
        standings: Standings,
        credit: CreditWatch,
        commands: Commands,
        wall_ms: Callable[[], int],
    ) -> None:
        self._receiver = receiver
        self._feed = feed
        self._database = database
        self._standings = standings
        self._credit = credit
        self._commands = commands
        self._wall_ms = wall_ms
        self._sessions: set[GatewaySession] = set()
        self.app = LinkApp(self._authenticate, self._open_session)

    @property
    def connected(self) -> int:
        return len(self._sessions)

    async def run(self, stop: asyncio.Event) -> None:
        """Notes who is connected, until `stop`; then every gateway is told to come back."""
        while not stop.is_set():
            await pause(stop, SEEN_EVERY_S)
            try:
                await self._note_seen()
            except DatabaseError as error:
                _log.warning("last seen not noted", reason=str(error))
        for session in self._sessions:
            session.end("restart", "the cloud is restarting", STOPPING_RETRY_S)

    async def _note_seen(self) -> None:
        by_project: dict[str, list[str]] = {}
        for session in self._sessions:
            by_project.setdefault(session.project_id, []).append(session.gateway_id)
        for project_id, gateway_ids in by_project.items():
            await self._note(project_id, gateway_ids)

    async def _note(self, project_id: str, gateway_ids: list[str]) -> None:
        async with self._database.transaction() as conn:
            await gateways.seen(conn, project_id, gateway_ids)

    async def _authenticate(self, token: str) -> Claims:
        claims = claimed(token)
        try:
            async with self._database.connection() as conn:
                gateway = await gateways.get(conn, claims.project_id, claims.gateway_id)
        except NotFoundError:
            raise WrongKeyError(f"no gateway {claims.gateway_id} is enrolled in {claims.project_id}") from None
        except DatabaseError as error:
            raise RejectedError(503, "database", str(error), AWAY_RETRY_S) from None
        try:
            keys = [public_key(base64.urlsafe_b64decode(key + "==")) for key in gateway.public_keys]
        except (ValueError, binascii.Error) as error:
            raise AssertionError(f"a key of gateway {gateway.id} in the database is no Ed25519 key") from error
        try:
            return verify(token, keys, now_s=self._wall_ms() // 1000)
        except TokenError as error:
            _log.warning("gateway refused", gateway=claims.gateway_id, project=claims.project_id, reason=error.text)
            raise

    @contextlib.asynccontextmanager
    async def _open_session(self, claims: Claims) -> AsyncIterator[GatewaySession]:
        try:
            async with self._database.connection() as conn:
                source_id = await sources.number(conn, claims.project_id, "gateway", claims.gateway_id)
            await self._note(claims.project_id, [claims.gateway_id])
        except DatabaseError as error:
            raise RejectedError(503, "database", str(error), AWAY_RETRY_S) from None
        name = GatewayName(claims.project_id, claims.gateway_id, source_id)
        async with contextlib.AsyncExitStack() as stack:
            try:
                commands = await stack.enter_async_context(
                    self._commands.of_gateway(claims.project_id, claims.gateway_id)
                )
            except DatabaseError as error:
                raise RejectedError(503, "database", str(error), AWAY_RETRY_S) from None
            configurations = GatewayConfigurations(self._database, claims.project_id, claims.gateway_id)
            stack.enter_context(self._commands.heeding(claims.project_id, claims.gateway_id, configurations.wake))
            session = GatewaySession(
                project_id=claims.project_id,
                gateway_id=claims.gateway_id,
                intake=GatewayIntake(self._receiver, source_id),
                registry=_ProjectFeed(self._feed, claims.project_id),
                commands=commands,
                books=GatewayBooks(self._receiver, source_id, partial(self._standings.tell, name)),
                credit=GatewayCredit(self._credit),
                configuration=configurations,
            )
            self._sessions.add(session)
            _log.info("gateway connected", gateway=claims.gateway_id, project=claims.project_id)
            try:
                yield session
            finally:
                self._sessions.discard(session)
                reason = session.figures.reason
                _log.info("gateway gone", gateway=claims.gateway_id, project=claims.project_id, reason=reason)


class _ProjectFeed:
    """One project's registry, for a gateway's replica. A database that is away is waited out: the link goes on."""

    def __init__(self, feed: RegistryFeed, project_id: str) -> None:
        self._feed = feed
        self._project_id = project_id

    async def changes(self, base_revision: int) -> AsyncIterator[RegistryChange]:
        base = base_revision
        while True:
            try:
                async for change in self._feed.changes(self._project_id, base):
                    yield _for_gateways(change)
                    base = change.revision
            except DatabaseError as error:
                _log.warning("registry not sent yet", project=self._project_id, reason=str(error))
                await asyncio.sleep(AWAY_RETRY_S)


def _for_gateways(change: RegistryChange) -> RegistryChange:
    """Without the attributes of blueprints and the parents of devices, which cost the line, and which no gateway looks
    at."""
    known = tuple(Blueprint(blueprint.id, blueprint.route) for blueprint in change.blueprints)
    devices = tuple(
        msgspec.structs.replace(device, parents=()) if device.parents else device for device in change.devices
    )
    return msgspec.structs.replace(change, blueprints=known, devices=devices)
