"""Replicas follow the registry; whatever way they take, they end at the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.messages import DEFAULT_ROUTE
from sync.registry import Alias, Blueprint, Device, Network, Registry, RegistryChange, StaleReplicaError


def device(number: int, *aliases: str, blueprint: str = "pump", route: dict[str, list[str]] | None = None) -> Device:
    return Device(number, "site", blueprint, tuple(Alias("demo", "serial", alias) for alias in aliases), route)


def replica(*changes: RegistryChange) -> Registry:
    registry = Registry("p")
    for change in changes:
        registry.apply(change)
    return registry


SNAPSHOT = RegistryChange("p", 0, 5, (Network("demo"),), (Blueprint("pump"),), (device(1, "a", "b"), device(2, "c")))


def test_a_device_is_found_by_each_of_its_aliases_until_they_are_gone() -> None:
    registry = replica(SNAPSHOT, RegistryChange("p", 5, 6, devices=(device(1, "b", "d"),)))
    assert registry.device("demo", "serial", "a") is None
    for alias, number in (("b", 1), ("d", 1), ("c", 2)):
        found = registry.device("demo", "serial", alias)
        assert found is not None
        assert found.id == number
    registry.apply(RegistryChange("p", 6, 7, gone_devices=(1,)))
    assert registry.device("demo", "serial", "b") is None


def test_an_alias_that_moves_to_another_device_stays_there() -> None:
    registry = replica(SNAPSHOT, RegistryChange("p", 5, 6, devices=(device(2, "c", "a"), device(1, "b"))))
    found = registry.device("demo", "serial", "a")
    assert found is not None
    assert found.id == 2


def test_the_devices_route_goes_before_the_blueprints() -> None:
    registry = replica(
        RegistryChange(
            "p",
            0,
            1,
            blueprints=(Blueprint("pump", {"device_data_event": ["reason", "writer"]}), Blueprint("tank")),
            devices=(device(1, "a"), device(2, "b", route={"device_data_event": []}), device(3, "c", blueprint="tank")),
        )
    )
    routes = [registry.target("demo", "serial", alias).route for alias in "abc"]
    assert routes == [{"device_data_event": ["reason", "writer"]}, {"device_data_event": []}, DEFAULT_ROUTE]


def test_changes_come_in_order_or_not_at_all() -> None:
    registry = replica(SNAPSHOT)
    with pytest.raises(StaleReplicaError, match="starts at revision 7"):
        registry.apply(RegistryChange("p", 7, 8))
    with pytest.raises(StaleReplicaError, match="project q"):
        registry.apply(RegistryChange("q", 5, 6))
    registry.apply(RegistryChange("p", 2, 4, gone_devices=(1, 2)))
    assert (registry.revision, len(registry.devices)) == (5, 2), "what is held already is passed over"


@given(st.lists(st.tuples(st.integers(1, 4), st.lists(st.sampled_from("abcde"), unique=True)), max_size=12))
def test_a_replica_by_changes_equals_one_by_snapshot(steps: list[tuple[int, list[str]]]) -> None:
    registry = replica(SNAPSHOT)
    owner: dict[str, int] = {"a": 1, "b": 1, "c": 2}
    for revision, (number, aliases) in enumerate(steps, start=5):
        free = [alias for alias in aliases if owner.get(alias, number) == number]
        owner = {alias: held for alias, held in owner.items() if held != number} | dict.fromkeys(free, number)
        registry.apply(RegistryChange("p", revision, revision + 1, devices=(device(number, *free),)))
    again = replica(registry.snapshot())
    for held in (registry, again):
        named = {alias: found.id for alias in "abcde" if (found := held.device("demo", "serial", alias))}
        assert named == owner
