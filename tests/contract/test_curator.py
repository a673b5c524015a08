"""The curator on a real PostgreSQL: gone is what the report says, kept is all else, and writes go on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import uuid
from collections.abc import Mapping
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg
import msgspec
import pytest
import pytest_asyncio

from cloud import series
from cloud.db import curator as steps
from cloud.db import curator_reports, history, retention, rollups
from cloud.db.database import Connection, Database
from cloud.model.buckets import cut, parse_width
from cloud.model.curation import Report
from cloud.model.retention import DAY_MS, KEPT, BlueprintRetention, Retention, windows
from cloud.model.series import Question
from cloud.series import Scope
from cloud.services import curator as service
from cloud.services import curator_run
from cloud.services import rollups as maker
from cloud.services.curator import Curator

pytest_plugins = ("tests.contract.postgres",)

MINUTE = 60_000
NOW = 1_772_366_400_000  # 2026-03-01T12:00:00Z, a Sunday
DEVICES = {"a": "pump", "b": "valve"}


@pytest_asyncio.fixture
async def database(new_database: Database) -> Database:
    """Of the test's own: weeks of history come and go in it."""
    return new_database


def stop() -> asyncio.Event:
    return asyncio.Event()


async def furnish(database: Database, rules: Mapping[str, Retention]) -> dict[tuple[str, str], int]:
    """Each project with devices a (a pump) and b (a valve), and partitions for the last weeks: device ids."""
    found = {}
    async with database.transaction() as conn:
        for week in range(-20, 1):
            await history.ensure_partitions(conn, NOW + week * history.WEEK_MS)
        for project in rules:
            await conn.execute("INSERT INTO project (id, name) VALUES ($1, 'P')", project)
            await conn.execute("INSERT INTO system (project_id, id, name) VALUES ($1, 's', 'S')", project)
            for name, blueprint in DEVICES.items():
                await conn.execute(
                    "INSERT INTO blueprint (project_id, id, name, revision) VALUES ($1, $2, 'B', 1)", project, blueprint
                )
                found[project, name] = await conn.fetchval(
                    """INSERT INTO device (project_id, system_id, blueprint_id, name, revision)
                       VALUES ($1, 's', $2, 'D', 1) RETURNING id""",
                    project,
                    blueprint,
                )
            if rules[project] != KEPT:
                await retention.put(conn, project, rules[project])
    return found


async def write(conn: Connection, project: str, device: int, days: float, data: str = '{"n":1}') -> None:
    """A message of so many days ago."""
    time = round(NOW - days * DAY_MS)
    await conn.execute(
        """INSERT INTO history (project_id, device_id, event_time, id, received_time, flags, data)
           VALUES ($1, $2, $3, $4, $3, 0, $5)""",
        project,
        device,
        time,
        uuid.uuid4(),
        data,
    )


async def days_left(database: Database, device: int) -> list[tuple[float, dict[str, Any]]]:
    async with database.connection() as conn:
        found = await conn.fetch(
            "SELECT event_time, data FROM history WHERE device_id = $1 ORDER BY event_time DESC", device
        )
    return [((NOW - row["event_time"]) / DAY_MS, json.loads(row["data"])) for row in found]


async def weeks(database: Database) -> set[str]:
    async with database.connection() as conn:
        return {part.name for part in await steps.partitions(conn)}


def a_curator(database: Database) -> Curator:
    return Curator(database, lambda: NOW, 86_400)


async def curate(database: Database) -> dict[str, Report]:
    found = await a_curator(database).curate(stop(), is_scheduled=True)
    assert found is not None
    return {report.project_id: report for report in found}


async def test_each_message_is_left_as_its_rules_say_and_counted(database: Database) -> None:
    rules = {
        "p": Retention(
            history_days=100,
            blueprints={"pump": BlueprintRetention(attributes={"noise": 10, "alarm": 200, "serial": None})},
        ),
        "q": KEPT,
    }
    ids = await furnish(database, rules)
    rng = random.Random(3)
    expected: dict[int, list[tuple[float, dict[str, Any]]]] = {device: [] for device in ids.values()}
    counts = {"gone": 0, "stripped": 0}
    async with database.transaction() as conn:
        for (project, name), device in ids.items():
            for _ in range(150):
                days = rng.choice([9.5, 10.5, 99, 101, 199, 201, 390, 600]) + rng.random() / 4
                data = {key: 1 for key in ("noise", "alarm", "serial", "n") if rng.random() < 0.4}
                await write(conn, project, device, days, json.dumps(data))
                left: dict[str, Any] | None = data
                for window in windows(rules[project], DEVICES[name], NOW):
                    time = round(NOW - days * DAY_MS)
                    if (window.from_ms is None or window.from_ms <= time) and time < window.until_ms:
                        names = set(window.kept) if window.gone is None else data.keys() - set(window.gone)
                        left = {key: 1 for key in data if key in names} or (None if window.gone is None else {})
                counts["gone"] += left is None
                counts["stripped"] += left is not None and left != data
                if left is not None:
                    expected[device].append(((NOW - round(NOW - days * DAY_MS)) / DAY_MS, left))
    report = (await curate(database))["p"]
    for device, messages in expected.items():
        assert await days_left(database, device) == sorted(messages, key=lambda message: message[0]), device
    for line in report.lines:
        assert line.rows == line.rows_before, line
        assert (line.rows_after, line.row_bytes > 0) == (0, True), line
    told = {name: sum(line.rows for line in report.lines if line.action in actions) for name, actions in
            {"gone": ("deleted", "dropped"), "stripped": ("stripped",)}.items()}  # fmt: skip
    assert told == counts
    assert (report.problem, report.finished_at is not None) == ("", True)
    assert await curate(database) == {}, "nothing is left to do"


async def test_a_week_that_nobody_keeps_any_of_is_dropped_and_its_bytes_are_back(database: Database) -> None:
    ids = await furnish(database, {"p": Retention(history_days=30), "q": Retention(history_days=60)})
    async with database.transaction() as conn:
        for device in range(3):
            for day in (20, 40, 50, 70, 80):
                await write(conn, "p", ids["p", "ab"[device % 2]], day + device / 10)
        await write(conn, "q", ids["q", "a"], 40)
        await write(conn, "q", ids["q", "a"], 70)
    (name,) = [part.name for part in await _parts(database) if part.from_ms and part.from_ms < NOW - 80 * DAY_MS][-1:]
    async with database.connection() as conn:
        size = await steps.size(conn, name)
    reports = await curate(database)
    lines = {(project, line.table, line.action): line for project, report in reports.items() for line in report.lines}
    assert (lines["p", name, "dropped"].rows, lines["p", name, "dropped"].rule) == (3, "history_days = 30")
    (told,) = [one for one in reports["p"].sizes if one.table == name]
    assert (told.bytes_before, told.bytes_after) == (size, 0)
    assert sum(line.rows for line in reports["p"].lines) == 12
    assert [(line.action, line.rows) for line in reports["q"].lines] == [("dropped", 1)]
    assert name not in await weeks(database)
    async with database.connection() as conn:
        assert await conn.fetchval("SELECT to_regclass($1)", name) is None
    assert len(await days_left(database, ids["q", "a"])) == 1, "q keeps what p does not, in the same week"


async def _parts(database: Database) -> list[steps.Partition]:
    async with database.connection() as conn:
        return await steps.partitions(conn)


async def test_a_dry_run_tells_what_the_run_then_does_and_touches_nothing(database: Database) -> None:
    rules = {
        "p": Retention(history_days=30, event_days=5, blueprints={"pump": BlueprintRetention(attributes={"n": 3})})
    }
    ids = await furnish(database, rules)
    async with database.transaction() as conn:
        for days in (1, 4, 29, 31, 45, 400):
            await write(conn, "p", ids["p", "a"], days, '{"n":1,"m":2}')
            await write(conn, "p", ids["p", "b"], days)
        source = await conn.fetchval("INSERT INTO source (project_id, kind) VALUES ('p', 'rest') RETURNING id")
        for days in (4, 6, 7):
            await event(conn, source, days)
    before = [await days_left(database, device) for device in ids.values()]
    found = await a_curator(database).curate(stop(), dry_for=["p"])
    assert found is not None
    (dry,) = found
    assert dry.dry_run
    assert [await days_left(database, device) for device in ids.values()] == before
    real = (await curate(database))["p"]

    def told(report: Report) -> list[tuple[Any, ...]]:
        return [(line.table, line.rule, line.rows_before, line.rows, line.row_bytes) for line in report.lines]

    assert told(dry) == told(real)
    assert {line.rows_after for line in real.lines} == {0}
    async with database.connection() as conn:
        assert await conn.fetchval("SELECT count(*) FROM device_event") == 1


async def event(conn: Connection, source: int, days: float, project: str = "p") -> None:
    await conn.execute(
        """INSERT INTO device_event (project_id, network_id, alias_key, alias, source_id, listener, online, reason,
                                     time, record, arrived)
           VALUES ($1, 'n', 'k', 'a', $2, 'l', true, '', 0, $3, now() - make_interval(secs => $4))""",
        project,
        source,
        uuid.uuid4(),
        days * 86_400,
    )


async def test_days_are_summed_up_and_follow_what_retention_leaves(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where more days wait than one turn takes."""
    monkeypatch.setattr(maker, "DAYS_MAX", 5)
    monkeypatch.setattr(maker, "TURN_S", 0.0)
    rules = {"p": Retention(history_days=60, blueprints={"pump": BlueprintRetention(attributes={"n": 30})}), "q": KEPT}
    ids = await furnish(database, rules)
    async with database.transaction() as conn:
        for device in ids.values():
            project = next(name for (name, _), other in ids.items() if other == device)
            for hours in range(1, 24 * 75, 11):
                await write(conn, project, device, hours / 24, f'{{"n":{hours},"m":1}}')
    curator = a_curator(database)

    async def roll_up() -> int:
        turns = 1
        while await curator.roll_up(stop()):
            turns += 1
        return turns

    assert await roll_up() > 1
    whole = await summed_up(database)
    assert {(device, name) for device, name, _ in whole} == {(device, name) for device in ids.values() for name in "nm"}
    today = NOW // DAY_MS
    assert {day for _, _, day in whole} >= set(range(today - 74, today))
    assert today not in {day for _, _, day in whole}, "it has not ended"
    await curate(database)
    counting = await summed_up(database)
    assert counting.items() <= (await made_anew(database)).items(), "what counts is what the rows say"
    await roll_up()
    left = await summed_up(database)
    assert left == await made_anew(database)
    assert min(day for device, _, day in left if device == ids["p", "b"]) == today - 60
    assert min(day for device, name, day in left if (device, name) == (ids["p", "a"], "n")) == today - 30
    assert {at for at in left if at[0] == ids["q", "a"]} == {at for at in whole if at[0] == ids["q", "a"]}
    async with database.connection() as conn:
        assert await conn.fetchval("SELECT count(*) FROM rollup WHERE device_id = $1", ids["p", "b"]) == 2 * 60


@pytest.mark.parametrize("days", [45, 70])
async def test_rollups_stay_longer_than_their_messages_where_they_may(database: Database, days: int) -> None:
    """Whether weeks are dropped (p is alone in them) or messages deleted (q keeps some), and for so many days only."""
    rules = Retention(history_days=30, rollup_days=days)
    ids = await furnish(database, {"p": rules, "q": KEPT})
    device = ids["p", "a"]
    async with database.transaction() as conn:
        for hours in range(1, 24 * 80, 13):
            await write(conn, "p", device, hours / 24, f'{{"n":{hours}}}')
        await write(conn, "q", ids["q", "a"], 40)

    async def by_day() -> dict[int, tuple[Any, ...]]:
        buckets = cut(parse_width("day"), ZoneInfo("Europe/Berlin"), NOW - 90 * DAY_MS, NOW)
        question = Question((("n",),), ("avg", "min", "max", "sum", "count"), buckets, NOW)
        rows = [row async for step in series.rows_of(database, Scope("p", (device,)), question) for row in step]
        return {buckets.starts[row.bucket]: row.values for row in rows}

    async def messages() -> int:
        return len(await days_left(database, device))

    before = await by_day()
    report = (await curate(database))["p"]
    assert {line.action for line in report.lines} == {"dropped", "deleted"}
    assert await messages() == sum(hours < 24 * 30 for hours in range(1, 24 * 80, 13))
    first = (NOW // DAY_MS - days) * DAY_MS
    told = {start: values for start, values in (await by_day()).items() if start >= first}
    assert told == {start: values for start, values in before.items() if start >= first}
    assert min(await by_day()) >= first - DAY_MS, "the day of Berlin begins in that of UTC before"

    async with database.transaction() as conn:
        await write(conn, "p", device, 40, '{"n":1000000}')
        await conn.execute(
            "INSERT INTO rollup_late (project_id, device_id, day) VALUES ('p', $1, $2)", device, NOW // DAY_MS - 40
        )
    while await a_curator(database).roll_up(stop()):
        pass
    assert {start: values for start, values in (await by_day()).items() if start >= first} == told, "too late"
    async with database.transaction() as conn:
        await retention.put(conn, "p", Retention(history_days=30))
    last = (await curate(database))["p"]
    assert {(line.table, line.rule) for line in last.lines} >= {("rollup", "no rollup_days")}
    assert min(await by_day()) >= NOW - 32 * DAY_MS


async def summed_up(database: Database) -> dict[tuple[int, str, int], tuple[Any, ...]]:
    """(device, attribute, day) to what counts of it."""
    async with database.connection() as conn:
        found = await conn.fetch(
            """SELECT r.* FROM rollup r JOIN rollup_day USING (device_id, day) WHERE NOT EXISTS (
                   SELECT FROM rollup_late l WHERE l.device_id = r.device_id AND l.day = r.day)"""
        )
    return {(row["device_id"], row["name"], row["day"]): tuple(row) for row in found}


async def made_anew(database: Database) -> dict[tuple[int, str, int], tuple[Any, ...]]:
    today = NOW // DAY_MS
    async with database.transaction(isolation="repeatable_read") as conn:
        devices = [row[0] for row in await conn.fetch("SELECT DISTINCT device_id FROM history")]
        await rollups.make(conn, [(device, day) for device in devices for day in range(today - 80, today)])
    return await summed_up(database)


async def test_what_came_long_ago_goes_whatever_its_own_clock_said(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curator_run, "ROWS_MAX", 3)
    await furnish(database, {"p": Retention(event_days=5), "q": KEPT})
    async with database.transaction() as conn:
        source = await conn.fetchval("INSERT INTO source (project_id, kind) VALUES ('p', 'rest') RETURNING id")
        for days in [9] * 7 + [4] * 3:
            await event(conn, source, days)
            await event(conn, source, days, "q")
    (line,) = (await curate(database))["p"].lines
    assert (line.table, line.rule, line.rows) == ("device_event", "event_days = 5", 7)
    async with database.connection() as conn:
        rows = await conn.fetch("SELECT project_id, count(*) AS rows FROM device_event GROUP BY 1 ORDER BY 1")
    assert [tuple(row) for row in rows] == [("p", 3), ("q", 10)]


async def test_orphans_go_by_their_own_rule_and_their_current_values_at_once(database: Database) -> None:
    ids = await furnish(database, {"p": Retention(history_days=90, deleted_device_days=10)})
    async with database.transaction() as conn:
        for device in ids.values():
            for days in (1, 20, 100):
                await write(conn, "p", device, days)
            await conn.execute(
                """INSERT INTO current_value (project_id, device_id, attribute, value, event_time, received_time, id)
                   VALUES ('p', $1, 'n', '1', 0, 0, $2)""",
                device,
                uuid.uuid4(),
            )
        await conn.execute("DELETE FROM device WHERE id = $1", ids["p", "a"])
    report = (await curate(database))["p"]
    assert [round(days) for days, _ in await days_left(database, ids["p", "a"])] == [1]
    assert [round(days) for days, _ in await days_left(database, ids["p", "b"])] == [1, 20]
    async with database.connection() as conn:
        assert [row[0] for row in await conn.fetch("SELECT device_id FROM current_value")] == [ids["p", "b"]]
    assert [line.rows for line in report.lines if line.table == "current_value"] == [1]


async def test_late_messages_without_a_week_go_from_the_default_partition(database: Database) -> None:
    ids = await furnish(database, {"p": Retention(history_days=30)})
    async with database.transaction() as conn:
        await write(conn, "p", ids["p", "a"], 3000)
        await write(conn, "p", ids["p", "a"], 20)
    (line,) = (await curate(database))["p"].lines
    assert (line.table, line.action, line.rows) == ("history_default", "deleted", 1)


async def test_writes_go_on_meanwhile_and_nothing_but_what_is_reported_is_gone(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writers of old and new messages, readers, and one who sits on a lock for a while."""
    monkeypatch.setattr(curator_run, "ROWS_MAX", 200)
    ids = await furnish(database, {"p": Retention(history_days=30), "q": KEPT})
    written = dict.fromkeys(("p", "q"), 0)
    async with database.transaction() as conn:
        await conn.execute(
            """INSERT INTO history (project_id, device_id, event_time, id, received_time, flags, data)
               SELECT project, device, $3::bigint - (n % days) * 86400000::bigint - n, gen_random_uuid(), 0, 0,
                   '{"n": 1}'
               FROM generate_series(1, 4000) n, unnest($1::text[], $2::bigint[], $4::integer[])
                   AS d (project, device, days)""",
            [project for project, _ in ids],
            list(ids.values()),
            NOW,
            [200 if project == "p" else 60 for project, _ in ids],
        )
    longest = 0.0
    done = asyncio.Event()

    async def writer(seed: int) -> None:
        nonlocal longest
        rng = random.Random(seed)
        while not done.is_set():
            started = asyncio.get_running_loop().time()
            project, name = rng.choice(list(ids))
            async with database.transaction() as conn:
                for _ in range(20):
                    await write(conn, project, ids[project, name], rng.choice([1, 40, 190]) + rng.random())
            written[project] += 20
            longest = max(longest, asyncio.get_running_loop().time() - started)
            await asyncio.sleep(0.001)

    async def sitter() -> None:
        """A long report over all of history."""
        async with database.transaction() as conn:
            await conn.fetchval("SELECT count(*) FROM history")
            await asyncio.sleep(1.5)

    async with asyncio.TaskGroup() as group:
        for seed in range(3):
            group.create_task(writer(seed))
        group.create_task(sitter())
        await asyncio.sleep(0.1)
        reports = await curate(database)
        done.set()
    report = reports["p"]
    assert set(reports) == {"p"}
    assert report.lock_waits > 0, "it let go of the lock that the report held up"
    assert report.problem == ""
    assert longest < 1.4, "nobody waited for the curator while it waited for the report"
    gone = sum(line.rows for line in report.lines)
    async with database.connection() as conn:
        found = await conn.fetch("SELECT project_id, count(*) AS rows FROM history GROUP BY 1")
        rows = {row["project_id"]: row["rows"] for row in found}
        detached = await steps.detached(conn)
    assert rows["q"] == 8000 + written["q"]
    assert rows["p"] == 8000 + written["p"] - gone
    assert detached == []
    again = await curate(database)
    late = sum(line.rows for line in again["p"].lines) if again else 0
    assert min(days for days, _ in await days_left(database, ids["p", "a"])) < 30
    for name in DEVICES:
        assert all(days <= 30 for days, _ in await days_left(database, ids["p", name]))
    async with database.connection() as conn:
        assert await conn.fetchval("SELECT count(*) FROM history WHERE project_id = 'p'") == rows["p"] - late


async def test_a_curator_that_is_killed_at_any_step_loses_nothing_that_is_kept(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also between taking a week out of history and dropping it."""
    ids = await furnish(database, {"p": Retention(history_days=30), "q": KEPT})
    async with database.transaction() as conn:
        for days in range(1, 80):
            await write(conn, "p", ids["p", "a"], days)
            await write(conn, "p", ids["p", "b"], days)
        for days in (1, 45):
            await write(conn, "q", ids["q", "a"], days)
    plain = steps.drop
    fails = 3

    async def drop(conn: Connection, table: str) -> None:
        nonlocal fails
        await plain(conn, table)
        fails -= 1
        if fails >= 0:
            raise asyncpg.ConnectionDoesNotExistError("killed")

    monkeypatch.setattr(steps, "drop", drop)
    for _ in range(fails):
        with contextlib.suppress(Exception):
            await curate(database)
    report = (await curate(database))["p"]
    assert [round(days) for days, _ in await days_left(database, ids["q", "a"])] == [1, 45]
    assert len(await days_left(database, ids["p", "a"])) == 30
    assert sum(line.rows for line in report.lines) == 2 * 49
    async with database.connection() as conn:
        assert await steps.detached(conn) == []


async def test_what_came_into_a_week_while_it_was_taken_out_is_put_back_for_those_who_keep_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await furnish(database, {"p": Retention(history_days=30), "q": KEPT})
    async with database.transaction() as conn:
        await write(conn, "p", ids["p", "a"], 60)
    plain = steps.detach
    calls = 0

    async def detach(conn: Connection, table: str) -> None:
        nonlocal calls
        calls += 1
        async with database.transaction() as other:
            (week,) = [part for part in await steps.partitions(other) if part.name == table]
            assert week.from_ms is not None
            await write(other, "q", ids["q", "a"], (NOW - week.from_ms) / DAY_MS - 1, '{"kept":true}')
        await plain(conn, table)

    monkeypatch.setattr(steps, "detach", detach)
    reports = await curate(database)
    assert calls > 1
    assert [data for _, data in await days_left(database, ids["q", "a"])] == [{"kept": True}] * calls
    assert await days_left(database, ids["p", "a"]) == []
    assert "q" not in reports


async def test_it_ends_with_its_process_though_a_statement_takes_long(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "END_WITHIN_S", 0.1)
    await furnish(database, {"p": Retention(history_days=30)})
    begun = asyncio.Event()

    async def held(conn: Connection, table: str) -> Any:
        begun.set()
        await conn.execute("SELECT pg_sleep(3600)", timeout=3600)

    monkeypatch.setattr(steps, "held", held)
    over = stop()
    running = asyncio.create_task(a_curator(database).run(over))
    await begun.wait()
    over.set()
    async with asyncio.timeout(30):
        await running


async def test_a_wish_is_done_once_by_one_process(database: Database) -> None:
    ids = await furnish(database, {"p": Retention(history_days=30)})
    async with database.transaction() as conn:
        await write(conn, "p", ids["p", "a"], 60)
        asked = await curator_reports.ask(conn, "p", dry_run=False)
        assert (await curator_reports.ask(conn, "p", dry_run=False)).number == asked.number
        await curator_reports.end_schedule(conn)
    both = [a_curator(database) for _ in range(2)]
    await asyncio.gather(*(one.step(stop()) for one in both))
    async with database.connection() as conn:
        (report,) = await curator_reports.page(conn, "p", limit=10)
    assert (report.number, sum(line.rows for line in report.lines)) == (asked.number, 1)
    assert report.finished_at is not None
    assert sum(one.counts.rows for one in both) == 1


async def test_rules_are_kept_as_they_are(database: Database) -> None:
    rules = Retention(
        5, blueprints={"pump": BlueprintRetention(None, {"n": 3, "m": None}), "valve": BlueprintRetention()}
    )
    await furnish(database, {"p": rules})
    async with database.connection() as conn:
        found, revision = await retention.get(conn, "p")
    assert (found, revision) == (rules, 1)
    assert found.blueprints["valve"].history_days is msgspec.UNSET
