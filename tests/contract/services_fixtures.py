"""The fixture `cloud`: the pipeline's services on a real NATS and a real PostgreSQL.

A test module takes it by `pytest_plugins = ("tests.contract.postgres", "tests.contract.services_fixtures")`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from cloud.db.database import Database
from cloud.registry_feed import RegistryFeed
from cloud.topics import TOPICS
from sync.bus.jetstream import JetStreamBus
from tests.contract.nats_server import NatsServer
from tests.contract.services import Cloud


@pytest_asyncio.fixture
async def cloud(database: Database, tmp_path: Path) -> AsyncIterator[Cloud]:
    server = NatsServer(tmp_path)
    await server.start()
    made = Cloud(database, await JetStreamBus.connect(server.url, TOPICS), await RegistryFeed.open(database))
    try:
        await made.start()
        yield made
    finally:
        await made.close()
        await server.kill()
