"""The API on a loopback port, over a database of the test's own, and clients that speak to it."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator, Collection

import httpx
import pytest_asyncio
from fastapi import FastAPI

from cloud.api.app import create_app
from cloud.api.auth import TOKEN_S, make_token
from cloud.api.context import ApiContext, ApiSettings
from cloud.db import grants, users
from cloud.db.database import Connection, Database
from cloud.db.grants import Member
from cloud.db.secrets import server_secret
from cloud.db.tenants import Tenants
from cloud.http_server import HttpServer
from protocols.shipment import MessageBatch

TIMEOUT_S = 20.0


class Tide:
    """A live feed that a test fills."""

    def __init__(self) -> None:
        self.readers: list[asyncio.Queue[MessageBatch]] = []
        self.joined = asyncio.Event()
        self.left = asyncio.Event()

    async def subscribe(self, project_ids: Collection[str]) -> AsyncIterator[MessageBatch]:
        queue: asyncio.Queue[MessageBatch] = asyncio.Queue()
        self.readers.append(queue)
        self.joined.set()
        try:
            while True:
                yield await queue.get()
        finally:
            self.readers.remove(queue)
            self.left.set()

    def rise(self, batch: MessageBatch) -> None:
        for queue in self.readers:
            queue.put_nowait(batch)


class Api:
    """The server, its database, and a client for each user that was made."""

    def __init__(self, url: str, app: FastAPI, database: Database, tide: Tide, context: ApiContext) -> None:
        self.url = url
        self.app = app
        self.database = database
        self.tide = tide
        self.context = context
        self.now_ms = 1_772_353_800_000
        self.now_s = 0.0
        self.clients: list[httpx.AsyncClient] = []

    def client(self, token: str = "") -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        client = httpx.AsyncClient(base_url=self.url + "/api/v1", headers=headers, timeout=TIMEOUT_S, trust_env=False)
        self.clients.append(client)
        return client

    async def user(self, name: str, *, admin: bool = False, **projects: str) -> httpx.AsyncClient:
        """A new user with these roles, and a session without the wait for the password's hash."""
        async with self.database.transaction() as conn:
            await users.create(conn, name, admin=admin)
            for project_id, role in projects.items():
                await grants.put(conn, project_id, Member(name, role, {}))
            return self.client(await self._token(conn, name))

    async def limited_user(self, name: str, project_id: str, **systems: str) -> httpx.AsyncClient:
        """A new user with these roles in systems of a project."""
        async with self.database.transaction() as conn:
            await users.create(conn, name)
            await grants.put(conn, project_id, Member(name, None, systems))
            return self.client(await self._token(conn, name))

    async def _token(self, conn: Connection, name: str) -> str:
        user_id = await conn.fetchval("SELECT id FROM app_user WHERE name = $1", name)
        expires = datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC)
        session_id, version, _ = await users.open_session(conn, user_id, expires)
        return make_token(self.context.session_key, user_id, session_id, version, self.now_ms // 1000 + TOKEN_S)


@pytest_asyncio.fixture
async def api(database: Database) -> AsyncIterator[Api]:
    async with database.transaction() as conn:
        key = await server_secret(conn, "session tokens")
    tide = Tide()
    tenants = await Tenants.open(database)
    context = ApiContext(
        database, tenants, tide, ApiSettings(), key, wall_ms=lambda: server.now_ms, monotonic_s=lambda: server.now_s
    )
    http = HttpServer("127.0.0.1", 0)
    server = Api(http.url, create_app(context), database, tide, context)
    stop = asyncio.Event()
    serving = asyncio.create_task(http.serve(server.app, stop))
    yield server
    for client in server.clients:
        await client.aclose()
    stop.set()
    await serving
    await context.close()


@pytest_asyncio.fixture
async def admin(api: Api) -> httpx.AsyncClient:
    """An administrator, who has set up a project `demo` with network, system and blueprint."""
    client = await api.user("admin", admin=True)
    for path, body in (
        ("/projects", {"id": "demo", "name": "Demonstration"}),
        ("/systems", {"id": "harbour", "name": "Harbour"}),
        ("/networks", {"id": "boats", "name": "Boats", "codec": {"key_paths": ["boot", "seq"]}}),
        (
            "/blueprints",
            {"id": "pump", "name": "Pump", "attributes": {"temperature": {"type": "number", "unit": "°C"}}},
        ),
    ):
        answer = await client.post(path, json=body)
        assert answer.status_code == 201, answer.text
    return client
