"""One site for the tests of this folder, which takes longer to set up than they to run."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.end_to_end.protocols.site import ProtocolsSite


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ProtocolsSite]:
    async with ProtocolsSite(tmp_path_factory.mktemp("protocols")) as site:
        await site.set_up()
        yield site
        await site.broker.stop()
        await site.units.stop()
