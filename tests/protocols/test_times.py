"""Event time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.messages import Anchor, Clock, ClockState
from protocols.times import corrected, event_times

NOW = 1_770_000_000_000


@pytest.mark.parametrize(
    ("device_ms", "expected"),
    [
        (None, (NOW, False)),
        (NOW - 5, (NOW - 5, False)),
        (946_684_800_000, (946_684_800_000, False)),
        (946_684_799_999, (NOW, True)),
        (0, (NOW, True)),
        (NOW + 300_000, (NOW + 300_000, False)),
        (NOW + 300_001, (NOW, True)),
        (4_070_908_800_000, (NOW, True)),
        (-1, (NOW, True)),
    ],
    ids=["none", "now", "2000", "before 2000", "1970", "5 min ahead", "more than 5 min ahead", "2099", "negative"],
)
def test_the_devices_time_counts_where_it_is_plausible(device_ms: int | None, expected: tuple[int, bool]) -> None:
    filed, replaced = event_times([NOW, device_ms, None], [NOW + 7, NOW, NOW + 9])
    assert (filed[1], replaced == [1]) == expected
    assert (filed[0], filed[2]) == (NOW, NOW + 9), "its neighbours are not touched"


def test_a_boot_that_began_in_1970_is_dated_by_what_became_known_later() -> None:
    boot = Clock(5, 0, ClockState.UNSET)
    anchors = [Anchor(5, 60_000, NOW, 40, "cloud"), Anchor(5, 21_660_000, NOW + 21_601_500, 30, "cloud")]
    times, errors = corrected([0, 59_999, 60_000, 70_000, 21_659_999, 21_660_000, 21_670_001], boot, anchors)
    assert times == [
        NOW - 60_000,
        NOW - 1,
        NOW,
        NOW + 10_000,
        NOW + 21_599_999,
        NOW + 21_601_500,
        NOW + 21_611_501,
    ], "each by the newest anchor not after it; what is before all of them by the earliest"
    assert errors == [46, 41, 40, 41, 2_200, 30, 32], "100 ppm of the distance, rounded up"


def test_a_step_of_the_wall_clock_changes_nothing() -> None:
    anchors = [Anchor(5, 60_000, NOW, 40, "cloud")]
    for offset_ms in (0, NOW, -(10**12), 4 * 10**12):
        times, errors = corrected([offset_ms + 61_000], Clock(5, offset_ms, ClockState.RESTORED), anchors)
        assert (times, errors) == ([NOW + 1_000], [41])


def test_what_is_only_reckoned_counts_where_nobody_told_the_time() -> None:
    boot = Clock(5, 0, ClockState.UNSET)
    reckoned, told = Anchor(5, 0, NOW, 400_000, "boots"), Anchor(5, 60_000, NOW, 40, "cloud")
    assert corrected([0, 70_000], boot, [reckoned]) == ([NOW, NOW + 70_000], [400_000, 400_007])
    assert corrected([0, 70_000], boot, [reckoned, told]) == corrected([0, 70_000], boot, [told])
    assert corrected([0], boot, [reckoned, reckoned]) == ([NOW], [400_000])


def test_an_error_bound_never_outgrows_its_column() -> None:
    _, errors = corrected([2**62], Clock(5, -(2**62), ClockState.UNSET), [Anchor(5, 0, NOW, 40, "cloud")])
    assert errors == [None], "no bound, rather than one that does not hold"


@given(
    drift_ppm=st.integers(-100, 100),
    made=st.lists(st.tuples(st.integers(0, 10**11), st.integers(0, 5_000), st.floats(-1, 1)), min_size=1, max_size=5),
    read=st.integers(0, 10**11),
    offset_ms=st.integers(-(10**13), 10**13),
)
def test_true_time_lies_within_the_error(
    drift_ppm: int, made: list[tuple[int, int, float]], read: int, offset_ms: int
) -> None:
    """For a boot clock that drifts by up to 100 ppm and anchors that keep their own bounds."""

    def truth(boot_ms: int) -> float:
        return NOW + boot_ms * (1 + drift_ppm / 1e6)

    anchors = sorted(
        Anchor(5, boot_ms, round(truth(boot_ms) + share * error_ms), error_ms + 1, "cloud")
        for boot_ms, error_ms, share in made
    )
    (time_ms,), (error_ms,) = corrected([read + offset_ms], Clock(5, offset_ms, ClockState.UNSET), anchors)
    assert error_ms is not None
    assert abs(time_ms - truth(read)) <= error_ms
