"""By which listener a command goes to a device that may be at several."""

from __future__ import annotations

from typing import cast

import pytest

from edge.downlink import Ways
from edge.listeners.listener import Listener
from edge.listeners.way import Way
from protocols.messages import Command
from sync.registry import Alias, Device, Network, Registry, RegistryChange


class Door:
    """A listener; and a way, as long as the device is there."""

    network_id = "quay"

    def __init__(self, name: str, *, confirms: bool = True) -> None:
        self.name = name
        self.confirms = confirms
        self.is_open = True

    def way(self, alias_key: str, alias: str) -> Way | None:
        assert (alias_key, alias) == ("serial", "pump")
        return self if self.is_open else None

    async def send(self, command: Command) -> None: ...


class Site:
    """A broker, which takes commands for anybody, stands first."""

    def __init__(self) -> None:
        self.broker, self.coap, self.mqtt = Door("broker", confirms=False), Door("coap"), Door("mqtt")
        self.there_s: dict[str, float] = {}
        pump = Device(1, "site", "pump", (Alias("quay", "serial", "pump"), Alias("away", "serial", "pump")))
        registry = Registry("demo")
        registry.apply(RegistryChange("demo", 0, 1, networks=(Network("quay"),), devices=(pump,)))
        doors = cast("list[Listener]", [self.broker, self.coap, self.mqtt])
        self._ways = Ways(registry, doors, lambda name: self.there_s.get(name[0], 0.0))

    @property
    def ways(self) -> list[str]:
        """Where a command is tried, in order; `-` before what is no way now."""
        found = list(self._ways.to(1))
        for place, _ in found:
            assert place.startswith("serial:pump at ")
        return ["-" * (way is None) + place.removeprefix("serial:pump at ") for place, way in found]


@pytest.fixture
def site() -> Site:
    return Site()


def test_a_device_that_nobody_has_seen_may_be_anywhere(site: Site) -> None:
    assert site.ways == ["broker", "coap", "mqtt"]


def test_where_it_never_was_is_passed_over_once_it_was_somewhere(site: Site) -> None:
    site.there_s["coap"] = 5.0
    assert site.ways == ["coap"]
    site.coap.is_open = False
    assert site.ways == ["-coap"]


def test_where_it_was_last_comes_first(site: Site) -> None:
    site.there_s |= {"coap": 5.0, "mqtt": 6.0}
    assert site.ways == ["mqtt", "coap"]
    site.there_s["coap"] = 7.0
    site.coap.is_open = False
    assert site.ways == ["-coap", "mqtt"]


def test_a_way_that_nobody_confirms_counts_only_where_it_was_last(site: Site) -> None:
    site.there_s |= {"broker": 5.0, "coap": 6.0}
    site.coap.is_open = False
    assert site.ways == ["-coap"]
    site.there_s["broker"] = 7.0
    assert site.ways == ["broker", "-coap"]
    site.broker.is_open = False
    assert site.ways == ["-broker", "-coap"]
