from __future__ import annotations

import random

from sync.link.backoff import Backoff


def test_waits_are_spread_below_a_bound_that_doubles_to_a_maximum() -> None:
    bounds = Backoff(0.5, 30.0, lambda: 1.0)
    assert [bounds.next_s() for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    bounds.reset()
    assert bounds.next_s() == 0.5
    rng = random.Random(1)
    waits = [wait for _ in range(2000) for wait in [_nth(4, rng)]]
    assert min(waits) < 0.2
    assert 3.9 < sum(waits) / len(waits) < 4.1
    assert max(waits) <= 8


def _nth(number: int, rng: random.Random) -> float:
    backoff = Backoff(0.5, 30.0, rng.random)
    for _ in range(number):
        backoff.next_s()
    return backoff.next_s()


def test_what_the_other_end_asks_for_is_the_least() -> None:
    assert Backoff(0.5, 30.0, lambda: 0.0).next_s(20.0) == 20.0
    assert Backoff(0.5, 30.0, lambda: 1.0).next_s(20.0) == 20.5


def test_ten_thousand_failures_are_no_more_than_many() -> None:
    backoff = Backoff(0.5, 30.0, lambda: 1.0)
    backoff.failures = 10_000
    assert backoff.next_s() == 30.0
