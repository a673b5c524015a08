"""Rules of retention, against the plain reading of them: of each attribute of a message, whether its days are over."""

from __future__ import annotations

import random

import msgspec

from cloud.model.retention import DAY_MS, KEPT, BlueprintRetention, Retention, Window, may_drop, windows

NOW = 1_772_366_400_000
NAMES = ("a", "b", "c", "other")


def left(found: list[Window], time_ms: int, data: set[str]) -> set[str] | None:
    """What the windows leave of a message; None: it is gone."""
    for window in found:
        if (window.from_ms is None or time_ms >= window.from_ms) and time_ms < window.until_ms:
            if window.gone is not None:
                return data - set(window.gone)
            return data & set(window.kept) or None
    return data


def test_what_is_left_is_what_each_attributes_own_days_say() -> None:
    rng = random.Random(7)
    for _ in range(3000):
        days = {name: rng.choice([None, 1, 2, 3, 5]) for name in NAMES if rng.random() < 0.5 and name != "other"}
        project, own = rng.choice([None, 1, 3]), rng.choice([msgspec.UNSET, None, 2, 4])
        retention = Retention(history_days=project, blueprints={"pump": BlueprintRetention(own, days)})
        base = project if own is msgspec.UNSET else own
        data = {name for name in NAMES if rng.random() < 0.7}
        age = rng.randrange(0, 13)  # half days
        time = NOW - age * DAY_MS // 2 - 1
        kept = {name for name in data if (limit := days.get(name, base)) is None or 2 * limit > age}
        expected = kept if kept or base is None or 2 * base > age else None
        assert left(windows(retention, "pump", NOW), time, data) == expected, (retention, age, data)


def test_windows_say_which_rule_made_them() -> None:
    retention = Retention(
        history_days=365, blueprints={"pump": BlueprintRetention(attributes={"vibration": 7, "alarm": None})}
    )
    assert windows(retention, "pump", NOW) == [
        Window(None, NOW - 365 * DAY_MS, None, ("alarm",), "history_days = 365"),
        Window(NOW - 365 * DAY_MS, NOW - 7 * DAY_MS, ("vibration",), (), "blueprints.pump.attributes.vibration = 7"),
    ]
    assert windows(retention, "valve", NOW) == [Window(None, NOW - 365 * DAY_MS, None, (), "history_days = 365")]
    assert windows(KEPT, "valve", NOW) == []


def test_deleted_devices_go_by_the_shorter_rule() -> None:
    for history, deleted, rule in (
        (30, 10, "deleted_device_days = 10"), (5, 10, "history_days = 5"), (None, 10, "deleted_device_days = 10"),
    ):  # fmt: skip
        (window,) = windows(Retention(history_days=history, deleted_device_days=deleted), None, NOW)
        assert (window.rule, window.whole) == (rule, True)


def test_a_partition_goes_only_if_nobody_keeps_any_of_it() -> None:
    rules = {
        "short": Retention(history_days=10),
        "mixed": Retention(history_days=10, blueprints={"pump": BlueprintRetention(attributes={"alarm": 20})}),
    }
    end = NOW - 10 * DAY_MS
    assert may_drop(rules, [("short", "any"), ("short", None), ("mixed", "valve")], end, NOW)
    assert not may_drop(rules, [("short", "any")], end + 1, NOW)
    assert not may_drop(rules, [("short", "any"), ("mixed", "pump")], end, NOW)
    assert may_drop(rules, [("mixed", "pump")], NOW - 20 * DAY_MS, NOW)
    assert not may_drop(rules, [("short", "any"), ("else", "any")], end, NOW)
