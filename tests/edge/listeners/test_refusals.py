from __future__ import annotations

import pytest

from edge.listeners import refusals as module
from edge.listeners.refusals import KEPT_MAX, LOG_EVERY_S, Refusals, Refused


def refused(number: int, code: str = "malformed") -> Refused:
    return Refused(number, code, "PUBLISH with packet identifier 0", "10.0.0.1:5", "pump", b"\x32")


def test_all_are_counted_and_the_last_ones_kept() -> None:
    refusals = Refusals("mqtt")
    watched: list[Refused] = []
    refusals.watch = watched.append
    for number in range(KEPT_MAX + 10):
        refusals.add(refused(number), now_s=0)
    refusals.add(refused(1000, "keep_alive"), now_s=0)
    assert refusals.counts == {"malformed": KEPT_MAX + 10, "keep_alive": 1}
    assert len(watched) == KEPT_MAX + 11
    assert [kept.time_ms for kept in refusals.last] == [*range(11, KEPT_MAX + 10), 1000]


def test_a_reason_that_repeats_is_logged_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    class Log:
        def __init__(self) -> None:
            self.lines: list[tuple[object, object]] = []

        def warning(self, event: str, **facts: object) -> None:
            self.lines.append((facts["code"], facts["count"]))

    log = Log()
    monkeypatch.setattr(module, "_log", log)
    refusals = Refusals("mqtt")
    for second in range(int(LOG_EVERY_S) + 1):
        refusals.add(refused(second), now_s=100.0 + second)
    refusals.add(refused(0, "keep_alive"), now_s=100.0)
    assert log.lines == [("malformed", 1), ("malformed", int(LOG_EVERY_S) + 1), ("keep_alive", 1)]
