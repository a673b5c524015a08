"""The fixture `behind`: the API takes messages in, for a device that is there.

A test module takes it beside `tests.contract.postgres` and `tests.contract.api_server`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import httpx
import pytest_asyncio

from cloud.ingest.fate_watch import FateWatch
from cloud.ingest.rest_server import RestServer
from cloud.ingest.routes import Ingest
from cloud.ingest.routes import router as ingest_router
from cloud.ingest.usual_request import UsualRequest
from cloud.registry_feed import RegistryFeed
from tests.contract.ingesting import BENCH, EPOCH, Ingesting

if TYPE_CHECKING:
    from tests.contract.api_server import Api


@pytest_asyncio.fixture
async def behind(api: Api, admin: httpx.AsyncClient) -> AsyncIterator[Ingesting]:
    feed = await RegistryFeed.open(api.database)
    found = Ingesting(api, feed)
    rest_server = RestServer(found, lambda: EPOCH, lambda: api.now_ms)
    api.app.state.ingest = Ingest(rest_server, feed, FateWatch(api.database), api.context)
    api.app.include_router(ingest_router)
    api.app.router.routes.insert(0, UsualRequest())
    body = {"system_id": "harbour", "blueprint_id": "pump", "name": "Bench", "aliases": [BENCH]}
    assert (await admin.post("/devices", json=body)).status_code == 201
    yield found
    await found.end()
    await feed.close()
