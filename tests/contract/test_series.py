"""History by buckets: what PostgreSQL finds, against plain Python over the same points."""

from __future__ import annotations

import asyncio
import datetime
import itertools
import json
import math
import random
import uuid
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec
import pytest

from cloud import series
from cloud.db import rollups
from cloud.db.database import Database
from cloud.db.postgres_store import PostgresStore
from cloud.db.series import STATE_CHARACTERS_MAX
from cloud.model.buckets import cut, parse_width
from cloud.model.series import (
    FUNCTIONS,
    NUMBER_MAX,
    OF_POINTS,
    STATES_MAX,
    Question,
    parse_fill,
    parse_filter,
    parse_path,
)
from cloud.series import Place, Scope
from protocols.shipment import MessageBatch, Target

pytest_plugins = ("tests.contract.postgres",)

MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
COMBINED = ("avg", "min", "max", "sum", "count")
"""What has a meaning for several devices together."""
CHANGES = {
    "Europe/Berlin": ("2026-03-29T01:00:00+00:00", "2026-10-25T01:00:00+00:00"),
    "Australia/Lord_Howe": ("2026-04-04T15:00:00+00:00", "2026-10-03T15:30:00+00:00"),  # by half an hour
    "America/Sao_Paulo": ("2018-11-04T03:00:00+00:00", "2019-02-17T02:00:00+00:00"),  # at midnight, which is not there
}
SPANS = {"10m": DAY, "1h": 3 * DAY, "6h": 6 * DAY, "day": 9 * DAY, "week": 40 * DAY, "month": 150 * DAY,
         "quarter": 300 * DAY, "year": 800 * DAY, "all": 2 * DAY}  # fmt: skip
PATHS = ("temperature", "meta.level")
SHARES = ("p0", "p50", "p99.9")


class Point(NamedTuple):
    time: int
    received: int
    id: bytes
    value: Any


class Message(NamedTuple):
    device: int
    time: int
    received: int
    id: bytes
    data: str


def a_value(rng: random.Random) -> str:
    """As JSON: mostly numbers."""
    kind = rng.choice(["number"] * 12 + ["whole"] * 6 + ["text", "boolean", "null", "huge", "tiny", "list"])
    made: dict[str, Callable[[], str]] = {
        "number": lambda: repr(round(rng.uniform(-50, 50), 3)),
        "whole": lambda: str(rng.choice([-1, 0, 1, 7, 2**60])),
        "text": lambda: json.dumps(rng.choice(["on", "off", "3", 'é, "x"'])),
        "boolean": lambda: rng.choice(["true", "false"]),
        "null": lambda: "null",
        "huge": lambda: rng.choice(["1e300", "-1e400"]),
        "tiny": lambda: "1e-400",
        "list": lambda: "[1,2]",
    }
    return made[kind]()


def some_messages(rng: random.Random, devices: Sequence[int], from_ms: int, to_ms: int) -> list[Message]:
    """Before, in and after the range, in the order in which they came: late ones behind newer, some several at once."""
    span = to_ms - from_ms
    found: list[Message] = []
    for _ in range(rng.randrange(90)):
        time = rng.randrange(from_ms - span // 2, to_ms + span // 4)
        if found and rng.random() < 0.3:
            time = rng.choice(found).time
        if rng.random() < 0.1:
            time = rng.choice([from_ms, from_ms - 1, to_ms, to_ms - 1])
        fields = [f'"mode":"{rng.choice(["auto", "hand"])}"']
        if rng.random() < 0.9:
            fields.append(f'"temperature":{a_value(rng)}')
        if rng.random() < 0.5:
            fields.append(f'"meta":{{"level":{a_value(rng)}}}')
        received = time + rng.choice([0, 5, DAY])
        found.append(Message(rng.choice(devices), time, received, rng.randbytes(16), "{" + ",".join(fields) + "}"))
    return found


async def write(database: Database, messages: Sequence[Message]) -> None:
    async with database.transaction() as conn:
        await conn.execute("TRUNCATE history, rollup, rollup_day, rollup_late")
        await conn.executemany(
            """INSERT INTO history (project_id, device_id, event_time, id, received_time, flags, data)
               VALUES ('demo', $1, $2, $3, $4, 0, $5)""",
            [(m.device, m.time, uuid.UUID(bytes=m.id), m.received, m.data) for m in messages],
        )


async def come_late(database: Database, messages: Sequence[Message]) -> None:
    """They are written by the pipeline, when all of their days have ended."""
    devices = sorted({message.device for message in messages})
    batch = MessageBatch(
        [], [Target("demo", "n", "k", "a", device, "b", "s", {}, 1) for device in devices],
        b"".join(message.id for message in messages), [0 for _ in messages], [0 for _ in messages],
        [devices.index(message.device) for message in messages], [0 for _ in messages], [None for _ in messages],
        [message.received for message in messages], [message.time for message in messages],
        [message.data.encode() for message in messages], [b"" for _ in messages], [], [],
    )  # fmt: skip
    store = PostgresStore(database, lambda: max(message.time for message in messages) + 2 * DAY)
    await store.run(lambda tx: tx.store(batch, range(len(messages))))


async def sum_up(database: Database, days: Sequence[tuple[int, int]]) -> None:
    async with database.transaction(isolation="repeatable_read") as conn:
        await rollups.make(conn, days)


def number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    return float(value) if -Decimal(NUMBER_MAX) <= value <= Decimal(NUMBER_MAX) else None


def points_of(messages: Sequence[Message], device: int | None, path: str, mode: str | None) -> list[Point]:
    found = []
    for message in messages:
        data: Any = json.loads(message.data, parse_float=Decimal)
        if (device is None or message.device == device) and (mode is None or data["mode"] == mode):
            for step in path.split("."):
                data = None if data is None else data.get(step)
            if data is not None:
                found.append(Point(message.time, message.received, message.id, data))
    return sorted(found, key=lambda point: point[:3])


def starts_of(width: str, zone: ZoneInfo, from_ms: int, to_ms: int) -> list[int]:
    """By walking along the time: where the name of the bucket changes. All of it lies at half hours."""
    if width == "all":
        return [from_ms, to_ms]
    fixed = {"10m": 10 * MINUTE, "1h": HOUR, "6h": 6 * HOUR}.get(width)

    def name(time: int) -> Any:
        if fixed:
            return time // fixed
        local = datetime.datetime.fromtimestamp(time / 1000, zone)
        return {
            "day": local.date(),
            "week": local.isocalendar()[:2],
            "month": (local.year, local.month),
            "quarter": (local.year, (local.month - 1) // 3),
            "year": local.year,
        }[width]

    step = 10 * MINUTE if fixed else 30 * MINUTE
    time = from_ms - from_ms % step
    while name(time - step) == name(from_ms):
        time -= step
    starts = [time]
    while time < to_ms:
        time += step
        if name(time) != name(time - step):
            starts.append(time)
    while name(time) == name(time - step) or starts[-1] < to_ms:
        time += step
        if name(time) != name(time - step):
            starts.append(time)
            break
    return starts


def interpolated(numbers: Sequence[float], share: float) -> float | None:
    if not numbers:
        return None
    ordered = sorted(numbers)
    place = share / 100 * (len(ordered) - 1)
    low = math.floor(place)
    return ordered[low] + (ordered[math.ceil(place)] - ordered[low]) * (place - low)


def held(points: Sequence[tuple[int, Any]], start: int, end: int, until: int, hold: int) -> list[tuple[Any, int]]:
    """(value, how long) in [start, end)."""
    found = []
    for (time, value), following in zip(points, [*[time for time, _ in points[1:]], until], strict=False):
        length = min(following, time + hold, until, end) - max(time, start)
        if length > 0:
            found.append((value, length))
    return found


def state_name(value: Any) -> str:
    if isinstance(value, Decimal):
        return f"{value:f}"[:STATE_CHARACTERS_MAX]
    return value if isinstance(value, str) else json.dumps(value)


def plain(points: Sequence[Point], start: int, end: int, from_ms: int, until: int, hold: int) -> dict[str, Any] | None:
    """All functions of a bucket; None: it has nothing."""
    inside = [point for point in points if start <= point.time < end]
    numbers = [(point.time, value) for point in points if (value := number(point.value)) is not None]
    mine = [(time, value) for time, value in numbers if start <= time < end]
    known = [point for point in points if point.time < until and point.time >= from_ms - hold]
    lengths = held([(point.time, point.value) for point in known], start, end, until, hold)
    states: dict[str, int] = {}
    for value, length in lengths:
        states[state_name(value)] = states.get(state_name(value), 0) + length
    weighted = held([(time, value) for time, value in numbers if time < until], start, end, until, hold)
    before = [(time, value) for time, value in numbers if time < start]
    base = before[-1] if mine and before and mine[0][0] - before[-1][0] <= hold else mine[0] if len(mine) > 1 else None
    if not inside and not lengths and not weighted:
        return None
    values = [value for _, value in mine]
    change = mine[-1][1] - base[1] if base else None
    span = mine[-1][0] - base[0] if base else 0
    return {
        "avg": math.fsum(values) / len(values) if values else None,
        "min": min(values, default=None),
        "max": max(values, default=None),
        "sum": math.fsum(values) if values else None,
        "count": len(inside),
        "first": inside[0].value if inside else None,
        "last": inside[-1].value if inside else None,
        "delta": change,
        "rate": change / span * 1000 if change is not None and span else None,
        "twa": sum(value * length for value, length in weighted) / sum(length for _, length in weighted)
        if weighted
        else None,
        "states": states or None,
        **{share: interpolated(values, float(share[1:])) for share in SHARES},
    }


def same(found: Any, expected: Any, scale: float) -> bool:
    found = read(found)
    if isinstance(expected, float) and isinstance(found, int | float):
        return expected == found or abs(found - expected) <= 1e-9 * (abs(expected) + scale)
    return bool(found == expected)


@pytest.mark.parametrize("zone", CHANGES)
async def test_every_function_and_bucket_is_what_plain_python_finds(database: Database, zone: str) -> None:
    for width, seed in itertools.product(SPANS, range(2)):
        rng = random.Random(f"{zone} {width} {seed}")
        change = round(datetime.datetime.fromisoformat(CHANGES[zone][seed]).timestamp() * 1000)
        span = rng.randrange(SPANS[width] // 2, SPANS[width])
        from_ms = change - rng.randrange(span // 4, 3 * span // 4)
        to_ms = from_ms + span
        if rng.random() < 0.5:  # to the hour, as people ask
            from_ms, to_ms = from_ms - from_ms % HOUR, to_ms - to_ms % HOUR
        now = rng.choice([to_ms + DAY, to_ms - span // 3])
        hold = rng.choice([span // 20, 10 * span])
        mode = rng.choice([None, "auto"])
        messages = some_messages(rng, (1, 2), from_ms, to_ms)
        await write(database, messages)
        question = Question(
            tuple(map(parse_path, PATHS)),
            (*FUNCTIONS, *SHARES),
            cut(parse_width(width), ZoneInfo(zone), from_ms, to_ms),
            now,
            filters=() if mode is None else (parse_filter(f"mode={mode}"),),
            hold_ms=hold,
        )
        starts = starts_of(width, ZoneInfo(zone), from_ms, to_ms)
        assert list(question.buckets.starts) == starts, (width, seed)
        until = min(now, to_ms)
        for together in (False, True):
            if together:
                question = msgspec.structs.replace(question, functions=(*OF_POINTS, *SHARES))
            found = await all_rows(database, Scope("demo", (1, 2), together), question)
            expected = {}
            for device, (place, path) in itertools.product([None] if together else [1, 2], enumerate(PATHS)):
                points = points_of(messages, device, path, mode)
                for bucket, (start, end) in enumerate(itertools.pairwise([from_ms, *starts[1:-1], to_ms])):
                    values = plain(points, start, end, from_ms, until, hold)
                    if values is not None and (values["count"] or not together):
                        expected[device, place, bucket] = values
            assert found.keys() == expected.keys(), (width, seed, together)
            for key, values in expected.items():
                scale = max([abs(value) for value in values.values() if isinstance(value, float)], default=0.0)
                for name, value in zip(question.functions, found[key], strict=True):
                    assert same(value, values[name], scale), (width, seed, key, name, value, values[name])


async def holds_for_rows(
    database: Database, asked: Question, written: Sequence[Message], from_ms: int, to_ms: int, what: object
) -> None:
    """What is answered, of each device and of both together, is what plain Python makes of these messages."""
    for together in (False, True):
        question = msgspec.structs.replace(asked, functions=COMBINED if together else OF_POINTS)
        found = await all_rows(database, Scope("demo", (1, 2), together), question)
        expected = {}
        for device, (place, path) in itertools.product(
            [None] if together else [1, 2], enumerate(("temperature", "mode", "none"))
        ):
            points = points_of(written, device, path, None)
            for bucket, (start, end) in enumerate(itertools.pairwise(asked.buckets.edges)):
                values = plain(points, start, end, from_ms, to_ms, DAY)
                if values is not None and values["count"]:
                    expected[device, place, bucket] = values
        assert found.keys() == expected.keys(), (together, what)
        for key, values in expected.items():
            scale = max([abs(value) for value in values.values() if isinstance(value, float)], default=0.0)
            for name, value in zip(question.functions, found[key], strict=True):
                assert same(value, values[name], scale), (what, key, name, value)


@pytest.mark.parametrize("zone", CHANGES)
async def test_rollups_say_what_the_rows_say_whatever_comes_late(database: Database, zone: str) -> None:
    """Days that are summed up, some of them or all; then more comes; then they are summed up again; and where they are
    all summed up, the rows are not looked at."""
    for width, seed in itertools.product([width for width in SPANS if width != "10m"], range(3)):
        rng = random.Random(f"rollups {zone} {width} {seed}")
        change = round(datetime.datetime.fromisoformat(CHANGES[zone][seed % 2]).timestamp() * 1000)
        span = max(rng.randrange(SPANS[width] // 2, SPANS[width]), 3 * DAY)
        from_ms = change - rng.randrange(span // 4, 3 * span // 4)
        if rng.random() < 0.5:
            from_ms -= from_ms % HOUR
        to_ms = from_ms + span
        messages = some_messages(rng, (1, 2), from_ms, to_ms)
        rng.shuffle(messages)
        first, later = messages[: len(messages) // 2], messages[len(messages) // 2 :]
        await write(database, first)
        buckets = cut(parse_width(width), ZoneInfo(zone), from_ms, to_ms)
        asked = Question((("temperature",), ("mode",), ("none",)), OF_POINTS, buckets, to_ms + DAY)
        case = (width, seed)
        every = [(device, day) for device in (1, 2) for day in range((from_ms - span) // DAY, (to_ms + span) // DAY)]
        some = [day for day in every if rng.random() < 0.6]

        await sum_up(database, some)
        await holds_for_rows(database, asked, first, from_ms, to_ms, (*case, "some days"))
        await sum_up(database, every)
        await holds_for_rows(database, asked, first, from_ms, to_ms, (*case, "all days"))
        if later:
            await come_late(database, later)
            await holds_for_rows(database, asked, messages, from_ms, to_ms, (*case, "late rows"))
            async with database.connection() as conn:
                changed = await rollups.late(conn, 2**30, 10_000)
                assert changed
            await sum_up(database, changed)
            await holds_for_rows(database, asked, messages, from_ms, to_ms, (*case, "summed up again"))
        first_day, end_day = -(-from_ms // DAY), to_ms // DAY
        async with database.transaction() as conn:
            await conn.execute(
                "DELETE FROM history WHERE event_time >= $1 AND event_time < $2", first_day * DAY, end_day * DAY
            )
        await holds_for_rows(database, asked, messages, from_ms, to_ms, (*case, "without the rows of whole days"))


@pytest.mark.parametrize("commits_first", [False, True])
async def test_a_change_that_is_not_committed_while_a_day_is_summed_up_is_not_lost(
    database: Database, commits_first: bool
) -> None:
    """Whichever of both commits first."""
    messages = numbered((1, 5, 1))
    await write(database, messages)
    day = NOON // DAY
    await sum_up(database, [(1, day)])
    late = [Message(1, NOON + 10 * MINUTE, NOON, b"l" * 16, '{"n":5}')]
    made, written, committed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def writer() -> None:
        async with database.transaction() as conn:
            await conn.execute(
                """INSERT INTO history (project_id, device_id, event_time, id, received_time, flags, data)
                   VALUES ('demo', 1, $1, $2, $1, 0, $3)""",
                late[0].time,
                uuid.UUID(bytes=late[0].id),
                late[0].data,
            )
            await conn.execute("INSERT INTO rollup_late (project_id, device_id, day) VALUES ('demo', 1, $1)", day)
            written.set()
            if not commits_first:
                await made.wait()
        committed.set()

    async def maker() -> None:
        async with database.transaction(isolation="repeatable_read") as conn:
            await conn.fetchval("SELECT count(*) FROM history")
            await written.wait()
            if commits_first:
                await committed.wait()
            await rollups.make(conn, [(1, day)])
        made.set()

    await asyncio.gather(writer(), maker())
    asked = msgspec.structs.replace(
        question("1h", "sum"), buckets=cut(parse_width("day"), ZoneInfo("UTC"), NOON - DAY, NOON + 2 * DAY)
    )
    found = await all_rows(database, Scope("demo", (1,)), asked)
    assert [row[0] for row in found.values()] == [6], commits_first


def read(value: Any) -> Any:
    return json.loads(bytes(value), parse_float=Decimal) if isinstance(value, msgspec.Raw) else value


async def all_rows(database: Database, scope: Scope, question: Question, **how: Any) -> dict[Any, tuple[Any, ...]]:
    found = {}
    async for rows in series.rows_of(database, scope, question, **how):
        for row in rows:
            assert (row.device_id, row.path, row.bucket) not in found
            found[row.device_id, row.path, row.bucket] = row.values
    return found


NOON = 1_772_366_400_000  # 2026-03-01T12:00:00Z


def question(
    width: str, *functions: str, paths: Sequence[str] = ("n",), hours: int = 6, fill: str = "none"
) -> Question:
    buckets = cut(parse_width(width), ZoneInfo("UTC"), NOON, NOON + hours * HOUR)
    return Question(tuple(map(parse_path, paths)), functions, buckets, NOON + DAY, fill=parse_fill(fill))


def numbered(*points: tuple[int, int, float]) -> list[Message]:
    """(device, minutes after noon, n)"""
    return [
        Message(device, NOON + minutes * MINUTE, NOON, place.to_bytes(16), f'{{"n":{n}}}')
        for place, (device, minutes, n) in enumerate(points)
    ]


async def test_several_devices_together_are_one_series(database: Database) -> None:
    await write(database, numbered((1, 5, 1), (2, 10, 4), (1, 20, 2), (2, 70, 8), (3, 6, 100)))
    asked = question("1h", "avg", "max", "count", "first", "last", "p50")
    found = await all_rows(database, Scope("demo", (1, 2), together=True), asked)
    assert {key: [*map(read, row)] for key, row in found.items()} == {
        (None, 0, 0): [7 / 3, 4, 3, 1, 2, 2],
        (None, 0, 1): [8, 8, 1, 8, 8, 8],
    }


async def test_another_project_has_no_part_in_it(database: Database) -> None:
    await write(database, numbered((1, 5, 1)))
    for functions in ("count", "delta", "twa", "states"):
        assert await all_rows(database, Scope("other", (1,)), question("1h", functions)) == {}


async def test_buckets_without_values_are_filled(database: Database) -> None:
    await write(database, numbered((1, 65, 1), (1, 245, 4)))
    for fill, expected in (
        ("none", [1, 4]),
        ("null", [None, 1, None, None, 4, None]),
        ("previous", [None, 1, 1, 1, 4, 4]),
        ("linear", [None, 1, 2, 3, 4, None]),
        ("-1", [-1, 1, -1, -1, 4, -1]),
    ):
        asked = question("1h", "avg", "last", "count", fill=fill)
        rows = [row async for step in series.rows_of(database, Scope("demo", (1,)), asked) for row in step]
        for place in (0, 1):
            assert [read(row.values[place]) for row in rows] == expected, fill
        assert [row.values[2] for row in rows] == [0 if row.filled else 1 for row in rows]


async def test_rows_come_in_both_orders_and_go_on_behind_any(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether devices share a step or have one each."""
    await write(database, numbered(*((device, 60 * hour, hour) for device in (1, 2, 5) for hour in range(4))))
    scope = Scope("demo", (1, 2, 3, 5))
    asked = question("1h", "max", paths=("n", "other", "n"))
    for step_rows in (5000, 1):
        monkeypatch.setattr(series, "STEP_ROWS", step_rows)
        for descending in (False, True):
            whole = list(await all_rows(database, scope, asked, descending=descending))
            hours = range(3, -1, -1) if descending else range(4)
            assert whole == [(device, path, hour) for device in (1, 2, 5) for path in (0, 2) for hour in hours]
            for place, key in enumerate(whole):
                rest = await all_rows(database, scope, asked, descending=descending, after=Place(*key))
                assert list(rest) == whole[place + 1 :]


async def test_the_states_of_a_bucket_are_told_longest_first_and_so_many_only(database: Database) -> None:
    await write(database, numbered(*((1, minute, minute % 150) for minute in range(151))))
    found = await all_rows(database, Scope("demo", (1,)), question("all", "states"))
    states = found[1, 0, 0][0]
    assert len(states) == STATES_MAX
    assert list(states.items())[:2] == [("0", (360 - 150 + 1) * MINUTE), ("1", MINUTE)]
