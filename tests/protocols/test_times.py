"""Event time."""

from __future__ import annotations

import pytest

from protocols.times import event_times

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
