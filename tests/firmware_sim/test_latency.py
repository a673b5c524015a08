"""Latencies: quantiles within 5 %, from a histogram that does not grow."""

from __future__ import annotations

import random

import pytest

from firmware_sim.devices.latency import Latencies, RecentLatencies


def test_quantiles_are_within_five_percent() -> None:
    rng = random.Random(1)
    values = sorted(rng.lognormvariate(1.0, 1.5) for _ in range(20_000))
    latencies = Latencies()
    for value in values:
        latencies.add(value)
    for share in (0.5, 0.9, 0.99):
        assert latencies.quantile_ms(share) == pytest.approx(values[int(share * len(values)) - 1], rel=0.05)
    assert latencies.quantile_ms(1.0) == pytest.approx(values[-1])


def test_nothing_measured_is_not_zero() -> None:
    assert Latencies().quantile_ms(0.99) is None


def test_extremes_are_counted_and_not_lost() -> None:
    latencies = Latencies()
    latencies.add(0.0)
    latencies.add(1e9)
    assert latencies.count == 2
    assert latencies.max_ms == 1e9


def test_recent_ones_are_of_the_last_seconds_only_and_the_total_keeps_all() -> None:
    recent = RecentLatencies(seconds=2)
    recent.add(100.0)
    recent.turn()
    assert recent.recent().max_ms == 100.0
    for _ in range(2):
        recent.add(1.0)
        recent.turn()
    assert recent.recent().max_ms == 1.0
    assert recent.total().max_ms == 100.0
    assert recent.total().count == 3
