from __future__ import annotations

from edge.status.rates import LATE_MS, SECONDS_MAX, Rates


def sample(rates: Rates, at_ms: int, logged: int, accepted: int, oldest_ms: int | None) -> None:
    rates.sample(
        at_ms, logged=logged, accepted=accepted, pending=logged - accepted, refused=0, oldest_pending_ms=oldest_ms
    )


def test_a_second_holds_what_happened_in_it() -> None:
    rates = Rates()
    sample(rates, 1000, 500, 100, None)
    sample(rates, 2000, 530, 180, 1900)
    (second,) = rates.seconds
    assert (second.at_ms, second.logged, second.accepted, second.pending) == (2000, 30, 80, 350)


def test_minutes_are_kept_and_no_more() -> None:
    rates = Rates()
    for number in range(SECONDS_MAX + 50):
        sample(rates, number, number, 0, None)
    assert len(rates.seconds) == SECONDS_MAX


def test_the_peak_is_that_of_this_backlog() -> None:
    rates = Rates()
    sample(rates, 10_000, 100, 0, 10_000 - LATE_MS + 1)
    assert rates.backlog_peak == 0, "what is on its way is no backlog"
    sample(rates, 20_000, 900, 0, 10_000)
    sample(rates, 30_000, 950, 500, 10_000)
    assert rates.backlog_peak == 900
    sample(rates, 31_000, 950, 949, 30_999)
    assert rates.backlog_peak == 0
    sample(rates, 60_000, 980, 949, 31_000)
    assert rates.backlog_peak == 31
