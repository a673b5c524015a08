"""The registry in the database, and the replicas that follow it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from cloud.db import blueprints, devices, networks, projects, systems
from cloud.db.database import Connection, Database
from cloud.db.errors import DanglingError, NotFoundError, TakenError
from cloud.db.registry import newest_change
from cloud.db.revision import REVISIONS_KEPT
from cloud.registry_feed import CHANGES_KEPT, RegistryFeed
from protocols.codecs import CodecSpec
from sync.registry import Alias, Registry

pytest_plugins = ("tests.contract.postgres",)

LOCK_WAITERS = """
    SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"""
SOON_S = 10.0
"""A bound for what is expected within milliseconds, so that a failure ends."""


@pytest_asyncio.fixture
async def demo(database: Database) -> Database:
    """A project with a network, a blueprint and a system."""
    async with database.transaction() as conn:
        await projects.create(conn, "demo", "Demo")
        await systems.create(conn, "demo", "harbour", "Harbour")
        await networks.create(conn, "demo", "boats", name="Boats", alias_key="esn", spec=CodecSpec(key_paths=("n",)))
        await blueprints.create(conn, "demo", "pump", name="Pump", attributes={})
    return database


@pytest_asyncio.fixture
async def feed(demo: Database) -> AsyncIterator[RegistryFeed]:
    feed = await RegistryFeed.open(demo)
    stop = asyncio.Event()
    running = asyncio.create_task(feed.run(stop))
    yield feed
    stop.set()
    await running
    await feed.close()


async def add_device(database: Database, *aliases: str) -> devices.Device:
    async def create(conn: Connection) -> devices.Device:
        return await devices.create(
            conn,
            "demo",
            system_id="harbour",
            blueprint_id="pump",
            name=" ".join(aliases) or "nameless",
            aliases=[Alias("boats", "esn", alias) for alias in aliases],
        )

    return await database.run(create)


async def test_a_snapshot_and_the_changes_behind_it_lead_to_the_same_replica(demo: Database) -> None:
    """Also through deletions, changed aliases and ids that come back."""
    follower = Registry("demo")
    follower.apply(await newest_change(demo, "demo", 0))
    first = await add_device(demo, "one", "uno")
    second = await add_device(demo, "two")
    follower.apply(await newest_change(demo, "demo", follower.revision))
    async with demo.transaction() as conn:
        await devices.update(conn, "demo", first.id, {"aliases": (Alias("boats", "esn", "eins"),)})
        await devices.delete(conn, "demo", second.id)
        await blueprints.create(conn, "demo", "tank", name="Tank", attributes={})
        await blueprints.delete(conn, "demo", "tank")
        await networks.create(conn, "demo", "quay", name="Quay", alias_key="serial", spec=CodecSpec())
        await networks.delete(conn, "demo", "quay")
        await networks.create(conn, "demo", "quay", name="Quay", alias_key="imei", spec=CodecSpec())
    change = await newest_change(demo, "demo", follower.revision)
    follower.apply(change)
    assert change.gone_devices == (second.id,)
    assert change.gone_blueprints == ("tank",)
    fresh = Registry("demo")
    fresh.apply(await newest_change(demo, "demo", 0))
    assert follower.snapshot() == fresh.snapshot()
    assert follower.device("boats", "esn", "one") is None
    found = follower.device("boats", "esn", "eins")
    assert found is not None
    assert found.id == first.id
    assert follower.networks["quay"].alias_key == "imei"
    assert follower.networks["boats"].spec.key_paths == ("n",)


async def test_revisions_of_concurrent_writers_commit_in_order(demo: Database) -> None:
    """A writer that is still open never has a lower revision than one that has committed: a replica that has seen
    revision n has seen all below it."""
    first_holds = asyncio.Event()
    second_tried = asyncio.Event()
    committed: list[tuple[str, int]] = []

    async def slow(conn: Connection) -> int:
        row = await devices.create(conn, "demo", system_id="harbour", blueprint_id="pump", name="slow")
        first_holds.set()
        await second_tried.wait()
        return row.revision

    async def first() -> None:
        committed.append(("slow", await demo.run(slow)))

    async def second() -> None:
        await first_holds.wait()
        adding = asyncio.create_task(add_device(demo, "quick"))
        async with demo.connection() as conn:  # until the second writer stands before the first one's lock
            while not await conn.fetchval(LOCK_WAITERS):
                pass
        assert not adding.done()
        second_tried.set()
        committed.append(("quick", (await adding).revision))

    await asyncio.wait_for(asyncio.gather(first(), second()), SOON_S)
    by_revision = sorted(committed, key=lambda one: one[1])
    assert [name for name, _ in by_revision] == ["slow", "quick"]
    assert by_revision[1][1] == by_revision[0][1] + 1


async def test_two_crowds_of_writers_and_a_follower_that_misses_nothing(demo: Database, feed: RegistryFeed) -> None:
    each = 40
    replica = Registry("demo")

    async def write(side: str) -> None:
        for number in range(each):
            await add_device(demo, f"{side}-{number}")

    async def follow() -> None:
        async for change in feed.changes("demo", 0):
            replica.apply(change)
            if len(replica.devices) == 2 * each:
                return

    await asyncio.wait_for(asyncio.gather(write("port"), write("starboard"), follow()), 3 * SOON_S)
    assert all(replica.device("boats", "esn", f"{side}-{each - 1}") for side in ("port", "starboard"))


async def test_an_alias_belongs_to_one_device(demo: Database) -> None:
    held = await add_device(demo, "one")
    with pytest.raises(TakenError, match=rf"boats:esn:one of device {held.id}"):
        await add_device(demo, "one")
    with pytest.raises(TakenError):
        await add_device(demo, "twice", "twice")
    with pytest.raises(DanglingError, match="nowhere"):
        await demo.run(
            lambda conn: devices.update(conn, "demo", held.id, {"aliases": (Alias("nowhere", "esn", "one"),)})
        )
    async with demo.connection() as conn:
        assert (await devices.find(conn, "demo", Alias("boats", "esn", "one")))[0] == held.id


async def test_a_replica_too_far_behind_or_from_the_future_gets_a_snapshot(demo: Database) -> None:
    async with demo.transaction() as conn:
        await conn.execute("UPDATE project SET revision = $1", REVISIONS_KEPT + 100)
    assert (await newest_change(demo, "demo", 99)).base == 0
    assert (await newest_change(demo, "demo", 100)).base == 100
    assert (await newest_change(demo, "demo", REVISIONS_KEPT + 101)).base == 0


@pytest.fixture
def seldom_polled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloud.registry_feed.POLL_S", 3600.0)


@pytest.fixture
def often_polled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloud.registry_feed.POLL_S", 0.05)


async def heard_first(feed: RegistryFeed) -> asyncio.Queue[str]:
    """What `on_change` tells, from the moment that the feed hears of changes."""
    told: asyncio.Queue[str] = asyncio.Queue()
    feed.on_change(told.put_nowait)
    assert await asyncio.wait_for(told.get(), SOON_S) == "demo"
    return told


async def test_a_change_reaches_services_and_sessions_by_notification(
    seldom_polled: None, demo: Database, feed: RegistryFeed
) -> None:
    told = await heard_first(feed)
    registry = await feed.registry("demo")
    changes = feed.changes("demo", registry.revision)
    coming = asyncio.ensure_future(anext(changes))
    row = await add_device(demo, "one")
    change = await asyncio.wait_for(coming, SOON_S)
    assert [device.id for device in change.devices] == [row.id]
    assert registry.device("boats", "esn", "one") is not None
    assert await asyncio.wait_for(told.get(), SOON_S) == "demo"
    await changes.aclose()


async def test_a_change_whose_notification_is_lost_is_found(
    often_polled: None, demo: Database, feed: RegistryFeed
) -> None:
    told = await heard_first(feed)
    registry = await feed.registry("demo")
    async with demo.connection() as conn:
        revision = await conn.fetchval("UPDATE project SET revision = revision + 1 RETURNING revision")
    while registry.revision < revision:
        assert await asyncio.wait_for(told.get(), SOON_S) == "demo"


async def test_refresh_waits_for_no_notification(demo: Database) -> None:
    """The feed does not run here: nobody listens."""
    feed = await RegistryFeed.open(demo)
    registry = await feed.registry("demo")
    row = await add_device(demo, "one")
    assert registry.device("boats", "esn", "one") is None
    assert (await feed.refresh("demo", row.revision)).device("boats", "esn", "one") is not None
    with pytest.raises(NotFoundError):
        await feed.registry("nobody")
    await feed.close()


async def test_refresh_needs_no_connection_of_the_common_pool(database_url: str, demo: Database) -> None:
    """The processor asks while it holds one, and all others may be held the same way."""
    narrow = await Database.connect(database_url, connections_max=1)
    feed = await RegistryFeed.open(narrow)
    async with narrow.transaction() as conn:
        await conn.execute("SELECT revision FROM project WHERE id = 'demo' FOR SHARE")
        assert (await asyncio.wait_for(feed.refresh("demo", 1), SOON_S)).networks
    await feed.close()
    await narrow.close()


async def test_a_session_that_is_far_behind_catches_up(demo: Database, feed: RegistryFeed) -> None:
    registry = await feed.registry("demo")
    base = registry.revision
    replica = Registry("demo")
    replica.apply(registry.snapshot())
    for number in range(CHANGES_KEPT + 5):
        row = await add_device(demo, f"n-{number}")
        await feed.refresh("demo", row.revision)
    async for change in feed.changes("demo", base):
        replica.apply(change)
        if replica.revision == row.revision:
            break
    assert len(replica.devices) == CHANGES_KEPT + 5


async def test_the_feed_goes_on_after_its_connections_were_cut(demo: Database, feed: RegistryFeed) -> None:
    changes = feed.changes("demo", (await feed.registry("demo")).revision)
    coming = asyncio.ensure_future(anext(changes))
    async with demo.connection() as conn:
        await conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    row = await add_device(demo, "one")
    change = await asyncio.wait_for(coming, SOON_S)
    assert [device.id for device in change.devices] == [row.id]
    await changes.aclose()
