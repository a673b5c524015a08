"""What gateways are told of the registry."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import cast

from cloud.registry_feed import RegistryFeed
from cloud.services.links import _ProjectFeed
from sync.registry import Blueprint, Device, Parent, RegistryChange


class Feed:
    async def changes(self, project_id: str, base: int) -> AsyncIterator[RegistryChange]:
        route = {"device_data_event": ["writer"]}
        blueprint = Blueprint("pump", route, '{"temperature":{"type":"number"}}')
        device = Device(1, "s", "pump", parents=(Parent(2, "pumps"),))
        yield RegistryChange(project_id, base, 7, (), (blueprint,), (device,))


async def test_gateways_are_told_nothing_of_what_only_the_cloud_looks_at() -> None:
    feed = _ProjectFeed(cast(RegistryFeed, Feed()), "p")
    change = await anext(feed.changes(3))
    assert change == RegistryChange(
        "p", 3, 7, (), (Blueprint("pump", {"device_data_event": ["writer"]}),), (Device(1, "s", "pump"),)
    )
