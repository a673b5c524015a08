"""A codec is broken, and mended: what it rejected is decoded again, each record once, whatever is cut off meanwhile."""

from __future__ import annotations

import asyncio
import json
import random

import msgspec

from cloud.db import history, inbox, reject_replays, rejects
from cloud.model.rejected import RejectFilter, RejectReplay
from cloud.services.processor import Processor
from cloud.services.reject_replay import RejectReplays
from cloud.services.transponder import Transponder
from protocols.codecs import CodecSpec, Layout, LayoutField
from protocols.ids import record_message_id
from protocols.messages import Anchor, Clock, ClockState, Lane
from protocols.shipment import CLOCK_CORRECTED, LATE
from tests.contract.services import NOW, Cloud, block, send

pytest_plugins = ("tests.contract.postgres", "tests.contract.services_fixtures")

RECORDS = 1000
PER_BLOCK = 100
READING = b"\x00\xd7\x63"
BROKEN = '{"codec": "layout", "layout": {"fields": [{"name": "t", "type": "u32"}]}}'
MENDED = """{"codec": "layout", "layout": {"fields": [{"name": "t", "type": "i16", "scale": 0.1}, {"name": "h"}]}}"""


async def set_codec(cloud: Cloud, codec: str) -> None:
    await cloud.change(f"UPDATE network SET codec = '{codec}', revision = $1 WHERE id = 'plain'")


async def want(cloud: Cloud, wanted: RejectFilter = RejectFilter()) -> int:  # noqa: B008  # it never changes
    async with cloud.database.transaction() as conn:
        return (await reject_replays.create(conn, "p", wanted)).number


async def progress(cloud: Cloud, number: int) -> RejectReplay:
    async with cloud.database.connection() as conn:
        return await reject_replays.get(conn, "p", number)


async def finish(cloud: Cloud) -> None:
    replays = RejectReplays(cloud.feed, cloud.bus, cloud.store)
    while await replays.step():
        pass


async def test_a_thousand_records_are_stored_once_although_the_replay_is_killed_all_along(cloud: Cloud) -> None:
    cloud.work(Processor(cloud.feed), Transponder(lambda: NOW))
    await cloud.add_device("plain", "a")
    await set_codec(cloud, BROKEN)
    for first in range(0, RECORDS, PER_BLOCK):
        await send(cloud, block(7, first, [("plain", "a", READING)] * PER_BLOCK))
    account = await cloud.until(lambda a: a.rejected_records == RECORDS)
    assert (account.accepted, account.decoded_records) == (RECORDS, 0)

    await set_codec(cloud, MENDED)
    numbers = [await want(cloud), await want(cloud, RejectFilter("plain", "undecodable"))]  # twice: the same records
    cuts = random.Random(4)
    while (await progress(cloud, numbers[1])).finished_at is None:
        workers = [asyncio.create_task(RejectReplays(cloud.feed, cloud.bus, cloud.store).run(cloud.stop)) for _ in "ab"]
        await asyncio.sleep(cuts.uniform(0.005, 0.08))
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        assert (await cloud.account()).closed

    account = await cloud.until(lambda a: a.stored == RECORDS)
    assert (account.accepted, account.decoded_records, account.rejected_records) == (RECORDS, RECORDS, 0)
    assert (account.decoded, account.repeated, account.in_pipeline) == (RECORDS, 0, 0)
    done = [await progress(cloud, number) for number in numbers]
    assert sum(one.decoded for one in done) == RECORDS
    assert [one.failed for one in done] == [0, 0]
    async with cloud.database.connection() as conn:
        rows = await history.page(conn, "p", await cloud.device("a"), 0, 2**53, limit=RECORDS)
    assert {row.id for row in rows} == {record_message_id(7, seq) for seq in range(RECORDS)}, "as the first decode's"
    assert {row.data for row in rows} == {b'{"h": 99, "t": 21.5}'}


async def test_what_fails_again_stays_with_its_new_reason(cloud: Cloud) -> None:
    cloud.work(Processor(cloud.feed), Transponder(lambda: NOW))
    await cloud.add_device("plain", "a")
    await send(cloud, block(7, 0, [("plain", "a", READING), ("plain", "a", b"\0")]))
    await cloud.until(lambda a: a.rejected_records == 2)
    await set_codec(cloud, MENDED)
    number = await want(cloud)
    await finish(cloud)
    account = await cloud.until(lambda a: a.stored == 1)
    assert (account.decoded_records, account.rejected_records) == (1, 1)
    found = await progress(cloud, number)
    assert (found.total, found.decoded, found.failed, found.finished_at is not None) == (2, 1, 1, True)
    async with cloud.database.connection() as conn:
        (left,) = await rejects.page(conn, "p", limit=10)
    assert (left.record_seq, left.payload) == (1, b"\0")
    assert left.detail == "the payload ends in t (byte 0)"


async def test_a_replay_is_only_of_what_it_asks_for(cloud: Cloud) -> None:
    cloud.work(Processor(cloud.feed), Transponder(lambda: NOW))
    for network in ("plain", "keyed"):
        await cloud.add_device(network, "a" if network == "plain" else "k")
    await send(cloud, block(7, 0, [("plain", "a", READING), ("keyed", "k", b"?"), ("plain", "a", READING)]))
    await cloud.until(lambda a: a.rejected_records == 3)
    await set_codec(cloud, MENDED)
    number = await want(cloud, RejectFilter("plain", since_ms=NOW + 1))
    await finish(cloud)
    account = await cloud.until(lambda a: a.stored == 1)
    assert (await progress(cloud, number)).total == 1
    assert account.rejected_records == 2


async def test_messages_come_out_as_they_would_have_the_first_time(cloud: Cloud) -> None:
    """By the listener's hint, dated by the anchors of the gateway's boot, late as they came, unknown ones in the inbox,
    several of a record, stopped ones stopped."""
    cloud.work(Processor(cloud.feed), Transponder(lambda: NOW))
    await cloud.add_device("plain", "a")
    anchor = Anchor(5, 0, NOW, 20, "kernel")
    await cloud.store.run(lambda tx: tx.keep_anchors(cloud.source, [anchor]))
    unset = Clock(5, 0, ClockState.UNSET)
    await set_codec(cloud, BROKEN)
    rows: list[tuple[str, str, object]] = [("plain", "a", b"\0\1\1\0\2\2"), ("plain", "stranger", b"\0\3\3")]
    await send(cloud, block(7, 0, rows, clock=unset, at_ms=1000), lane=Lane.BACKFILL)
    await cloud.until(lambda a: a.rejected_records == 2)
    group = LayoutField(
        "g", "group", messages=True, repeat="end", fields=(LayoutField("t", "u16"), LayoutField("h", "u8"))
    )
    spec = CodecSpec(codec="layout", layout=Layout((group,)))
    await set_codec(cloud, msgspec.json.encode(spec).decode())
    await want(cloud)
    await finish(cloud)
    account = await cloud.until(lambda a: a.stored == 2 and a.unresolved == 1)
    assert (account.decoded_records, account.decoded, account.rejected_records) == (2, 3, 0)
    async with cloud.database.connection() as conn:
        stored = await history.page(conn, "p", await cloud.device("a"), 0, 2**53, limit=10)
        (waits,) = await inbox.page(conn, "p", limit=10)
    assert [(row.id, json.loads(row.data)) for row in stored] == [
        (record_message_id(7, 0, 0), {"t": 1, "h": 1}),
        (record_message_id(7, 0, 1), {"t": 2, "h": 2}),
    ]
    assert {row.event_time for row in stored} == {NOW + 1000}
    assert {row.flags for row in stored} == {LATE | CLOCK_CORRECTED}
    assert (waits.alias, waits.payload) == ("stranger", b"\0\3\3")
    await cloud.add_device("plain", "stranger")
    account = await cloud.until(lambda a: a.stored == 3)
    assert account.unresolved == 0


async def test_a_keyed_message_is_found_by_the_record_that_carried_it(cloud: Cloud) -> None:
    """Although it travelled to the writer under other numbers, from the rejects and then from the inbox."""
    cloud.work(Processor(cloud.feed), Transponder(lambda: NOW))
    rows: list[tuple[str, str, object]] = [("keyed", "k", {"boot": 1, "seq": n, "time": "soon"}) for n in range(3)]
    await send(cloud, block(7, 40, rows))
    await cloud.until(lambda a: a.rejected_records == 3)
    codec = '{"key_paths": ["boot", "seq"], "time_path": ""}'
    await cloud.change(f"UPDATE network SET codec = '{codec}', revision = $1 WHERE id = 'keyed'")
    await want(cloud)
    await finish(cloud)
    await cloud.until(lambda a: a.unresolved == 3)
    await cloud.add_device("keyed", "k")
    await cloud.until(lambda a: a.stored == 3)
    async with cloud.database.connection() as conn:
        found = await conn.fetch("SELECT record FROM history ORDER BY record")
    assert [row["record"].bytes for row in found] == [record_message_id(7, 40 + n) for n in range(3)]
