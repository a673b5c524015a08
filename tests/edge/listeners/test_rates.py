from __future__ import annotations

import pytest

from edge.listeners import rates
from edge.listeners.rates import Rates


def test_a_device_may_send_two_seconds_worth_at_once() -> None:
    limited = Rates(10)
    assert limited.spend("a", 20, now=1)
    assert not limited.has_room("a", now=1)
    assert not limited.spend("a", 1, now=1)
    assert limited.spend("b", 1, now=1)
    assert not limited.may_go_on("a", now=2)
    assert limited.has_room("a", now=2)
    assert limited.may_go_on("a", now=3)


def test_without_a_limit_there_is_always_room() -> None:
    assert Rates(0).spend("a", 1_000_000, now=1)
    assert Rates(0).has_room("a", now=1)


def test_the_device_that_was_silent_longest_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "DEVICES_MAX", 2)
    limited = Rates(1)
    for device in ("a", "b", "a", "c"):
        limited.spend(device, 1, now=1)
    assert [limited.has_room(device, now=1) for device in ("a", "b", "c")] == [False, True, True]
    limited.spend("c", 1, now=1)
    assert not limited.has_room("c", now=1)
