"""2,000 inputs at each listener of a gateway that runs: what a neighbour notices of it, and what is left of it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.fuzz.listeners.flooding import beside, said_by
from tests.fuzz.listeners.site import FuzzSite, Gateway
from tests.fuzz.listeners.targets import LISTENERS, Listener
from tests.fuzz.trial import BrokenError, keep, kept

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="module")]

CASES = 2_000
PART = 200
RSS_GROWTH_MAX = 24 * 1024 * 1024
"""By one flood: tables fill, and what was allocated once is kept for the next time."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FuzzSite]:
    site = FuzzSite(tmp_path_factory.mktemp("fuzz"))
    await site.furnish()
    yield site
    site.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(site: FuzzSite) -> AsyncIterator[Gateway]:
    async with site.running() as gateway:
        yield gateway


@pytest.mark.parametrize("target", LISTENERS.values(), ids=LISTENERS.keys())
async def test_a_neighbour_notices_nothing_of_any_bytes(site: FuzzSite, gateway: Gateway, target: Listener) -> None:
    inputs = target.inputs(seed=1)
    try:
        async with beside(gateway, target, target.name) as flooding:
            await flooding.flood([*kept(target.name), *itertools.islice(inputs, PART)])
            rss_bytes = gateway.rss_bytes
            for _ in range(CASES // PART - 1):
                await flooding.flood(list(itertools.islice(inputs, PART)))
    except BrokenError as broken:
        raise AssertionError(keep(broken)) from broken
    acknowledged = flooding.neighbour.acknowledged
    logged = await asyncio.to_thread(site.logged, said_by(target.name))
    assert logged[: len(acknowledged)] == acknowledged, "each is in the log, once and in order"
    assert len(logged) <= len(acknowledged) + 1, "the last one may be there without its acknowledgement"
    grown = gateway.rss_bytes - rss_bytes
    assert grown <= RSS_GROWTH_MAX, f"{grown:,} bytes more than at first"
    accounting = await gateway.accounting()
    assert accounting.closed
    (figures,) = (one for one in accounting.listeners if f"listener:{one.name}" == target.name)
    assert figures.recorded > 0, "some inputs are taken"
    assert figures.malformed > 0, "and others refused"
