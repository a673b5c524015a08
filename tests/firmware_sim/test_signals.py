"""Signals: the same seed gives the same values, and each keeps to what it promises."""

from __future__ import annotations

import itertools
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_sim.signals import PROFILES, Counter, Gps, RandomWalk, Sine, Square, State, sample

STEPS = [second * 0.7 for second in range(500)]


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_repeats_itself_with_the_same_seed_and_not_with_another(name: str) -> None:
    def series(seed: int) -> list[object]:
        sensors = PROFILES[name].sensors(random.Random(seed))
        return [sample(sensors, at_s) for at_s in STEPS]

    assert series(7) == series(7)
    assert series(7) != series(8)


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_gives_exactly_the_attributes_that_its_blueprint_declares(name: str) -> None:
    profile = PROFILES[name]
    kinds = {"number": (int, float), "boolean": bool, "string": str, "geoposition": dict}
    values = sample(profile.sensors(random.Random(1)), 1.0)
    assert list(values) == [attribute.name for attribute in profile.attributes]
    for attribute in profile.attributes:
        assert isinstance(values[attribute.name], kinds[attribute.kind])
        assert isinstance(values[attribute.name], bool) == (attribute.kind == "boolean")
    json.dumps(values, allow_nan=False)


@given(
    low=st.floats(-1e6, 1e6),
    width=st.floats(0.5, 1e3),
    step=st.floats(0, 1e6),
    seed=st.integers(0, 99),
    gap_s=st.floats(0, 1e6),
)
def test_a_random_walk_stays_within_its_range(low: float, width: float, step: float, seed: int, gap_s: float) -> None:
    walk = RandomWalk(random.Random(seed), low=low, high=low + width, step=step)
    for number in range(1, 20):
        assert low - 0.05 <= walk.sample(number * gap_s) <= low + width + 0.05


def test_a_random_walk_moves_by_about_its_step() -> None:
    walk = RandomWalk(random.Random(3), low=0.0, high=1000.0, step=1.0, start=500.0)
    values = [walk.sample(float(second)) for second in range(1000)]
    steps = [abs(after - before) for before, after in itertools.pairwise(values)]
    assert 0.6 < sum(steps) / len(steps) < 1.0


def test_a_sine_swings_once_a_period() -> None:
    sine = Sine(random.Random(1), mean=10.0, amplitude=2.0, period_s=60.0)
    values = [sine.sample(float(second)) for second in range(60)]
    assert min(values) == pytest.approx(8.0, abs=0.02)
    assert max(values) == pytest.approx(12.0, abs=0.02)
    assert sine.sample(60.0) == values[0]


def test_a_counter_never_falls_and_counts_what_it_is_told() -> None:
    counter = Counter(per_s=2.5, start=100)
    values = [counter.sample(at_s) for at_s in STEPS]
    assert values == sorted(values)
    assert counter.sample(1000.0) == 2600


def test_a_square_is_true_for_its_share() -> None:
    square = Square(random.Random(2), period_s=100.0, duty=0.25)
    assert sum(square.sample(float(second)) for second in range(1000)) == pytest.approx(250, abs=10)


def test_a_state_takes_all_its_names_and_stays_for_a_while() -> None:
    state = State(random.Random(1), names=("open", "closed"), dwell_s=50.0)
    values = [state.sample(float(second)) for second in range(5000)]
    changes = sum(before != after for before, after in itertools.pairwise(values))
    assert set(values) == {"open", "closed"}
    assert 60 < changes < 160


def test_a_vessel_stays_near_its_berth_and_keeps_its_speed() -> None:
    gps = Gps(random.Random(5), lat=53.5, lon=10.0, speed_m_s=5.0, range_m=2_000.0)
    before = gps.sample(0.0)
    for second in range(1, 3000):
        now = gps.sample(float(second))
        assert abs(now["lat"] - 53.5) < 0.019
        assert abs(now["lon"] - 10.0) < 0.032
        assert abs(now["lat"] - before["lat"]) * 111_320 < 6.0
        before = now


def test_ranges_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="not below"):
        RandomWalk(random.Random(1), low=2.0, high=2.0, step=1.0)
    with pytest.raises(ValueError, match="two names"):
        State(random.Random(1), names=("only",), dwell_s=1.0)
    with pytest.raises(ValueError, match="pole"):
        Gps(random.Random(1), lat=89.0, lon=0.0, speed_m_s=1.0)
