"""What a hop failed on for good is given to it again once it is mended: each message once, whatever is cut off."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

import httpx
import msgspec

from cloud.db import dead_letters as letters
from cloud.db import jobs
from cloud.model.job import Job
from cloud.model.output import Output
from cloud.services import dead_letters
from cloud.services.dead_letters import DeadLetterReplay
from cloud.services.jobs import Jobs
from cloud.services.processor import Processor
from cloud.services.store import Transaction
from cloud.services.transponder import Transponder
from protocols.block import read_head
from protocols.messages import Lane
from protocols.shipment import decode_messages, decode_shipment
from tests.contract.services import NOW, Cloud, block, send

if TYPE_CHECKING:
    from tests.contract.api_server import Api

pytest_plugins = ("tests.contract.postgres", "tests.contract.services_fixtures", "tests.contract.api_server")


class Poisoned(Processor):
    """Fails on every third block, until it is mended."""

    mended = False

    async def handle(self, tx: Transaction, batch: Sequence[bytes], lane: Lane) -> list[Output]:
        heads = [read_head(each.block) for data in batch for each in decode_shipment(data)]
        if not self.mended and any(head.first_seq // 10 % 3 == 0 for head in heads):
            raise ValueError("poison")
        return await super().handle(tx, batch, lane)


class PoisonedWriter(Transponder):
    mended = False

    async def handle(self, tx: Transaction, batch: Sequence[bytes], lane: Lane) -> list[Output]:
        held = [run.first_seq // 10 for data in batch for run in decode_messages(data).runs]
        if not self.mended and any(n % 3 == 1 for n in held):
            raise ValueError("poison")
        return await super().handle(tx, batch, lane)


async def want(cloud: Cloud) -> Job:
    async with cloud.database.transaction() as conn:
        total, newest = await letters.count(conn, "p", None, None)
        return await jobs.create(conn, "p", dead_letters.KIND, {"through": newest}, total)


async def state_of(cloud: Cloud, job: Job) -> Job:
    async with cloud.database.connection() as conn:
        return await jobs.get(conn, "p", job.number)


async def test_what_failed_is_stored_once_although_the_replay_is_killed_all_along(cloud: Cloud) -> None:
    processor, writer = Poisoned(cloud.feed), PoisonedWriter(lambda: NOW)
    cloud.work(processor, writer)
    await cloud.add_device("plain", "a")
    for n in range(12):
        await send(cloud, block(7, n * 10, [("plain", "a", {"n": n * 10 + place}) for place in range(10)]))
    account = await cloud.until(lambda a: a.stored == 40 and a.dead_records == 40 and a.dead == 40)
    assert (account.accepted, account.in_pipeline, account.records_in_pipeline) == (120, 0, 0)

    first, second = await want(cloud), await want(cloud)  # of the same letters
    kinds = {dead_letters.KIND: DeadLetterReplay()}
    jobs_here = Jobs(kinds, cloud.bus, cloud.store)
    await jobs_here.step()
    await cloud.until(lambda a: a.dead_records + a.dead == 80)  # it failed again, and is a letter again
    processor.mended = writer.mended = True
    third = await want(cloud)
    cuts = random.Random(4)
    while (await state_of(cloud, third)).state != "done":
        workers = [asyncio.create_task(Jobs(kinds, cloud.bus, cloud.store).run(cloud.stop)) for _ in "ab"]
        await asyncio.sleep(cuts.uniform(0.005, 0.05))
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        assert (await cloud.account()).closed
    while await jobs_here.step():
        pass
    await cloud.replay._outputs.sweep()
    account = await cloud.until(lambda a: a.stored == 120 and not a.in_pipeline and not a.records_in_pipeline)
    assert (account.accepted, account.dead, account.dead_records, account.repeated) == (120, 0, 0, 0)
    assert sorted(int(str(row["n"])) for row in await cloud.stored("a")) == list(range(120))
    states = [await state_of(cloud, job) for job in (first, second, third)]
    assert sum(state.result.get("replayed", 0) for state in states) == 9
    async with cloud.database.connection() as conn:
        assert await letters.page(conn, "p", limit=10) == []


class Counting:
    """A job in a hundred steps; `asked` may say where it fails."""

    async def step(self, tx: Transaction, job: Job) -> tuple[Job, Sequence[Output]]:
        if job.position == job.asked.get("fails_at"):
            raise ValueError("broken")
        state = "done" if job.position == job.total - 1 else job.state
        return msgspec.structs.replace(job, position=job.position + 1, done=job.done + 1, state=state), []


async def test_jobs_take_turns_and_one_that_fails_stops_no_other(cloud: Cloud) -> None:
    async with cloud.database.transaction() as conn:
        long, short, broken = [
            await jobs.create(conn, "p", "count", asked, total)
            for asked, total in (({}, 100), ({}, 3), ({"fails_at": 1}, 10))
        ]
        nothing = await jobs.create(conn, "p", "count", {}, 0)
    assert nothing.state == "done"
    doing = Jobs({"count": Counting()}, cloud.bus, cloud.store)
    for _ in range(15):
        assert await doing.step()
    assert (await state_of(cloud, short)).state == "done"
    found = await state_of(cloud, broken)
    assert (found.state, found.done, found.error) == ("failed", 1, "ValueError: broken")
    assert 3 < (await state_of(cloud, long)).done < 15
    async with cloud.database.transaction() as conn:
        await jobs.cancel(conn, "p", long.number)
    done = (await state_of(cloud, long)).done
    while await doing.step():
        pass
    cancelled = await state_of(cloud, long)
    assert (cancelled.state, cancelled.done) == ("cancelled", done)
    assert cancelled.finished_at is not None


async def test_the_api_lists_and_replays_them(api: Api, admin: httpx.AsyncClient) -> None:
    async with api.database.transaction() as conn:
        source = await conn.fetchval("SELECT id FROM source WHERE project_id = 'demo'")
        for n, hop in enumerate(("processor", "processor", "transponder")):
            await conn.execute(
                """INSERT INTO dead_letter (project_id, hop, topic, source_id, epoch, records, detail, data)
                   VALUES ('demo', $1, 't', $2, 255, '{[10,12),[20,21)}', 'why', $3)""",
                hop,
                source,
                b"\xff" * (n + 1),
            )
    page = (await admin.get("/dead-letters?hop=processor&limit=1")).json()
    (letter,) = page["items"]
    assert (letter["size_bytes"], letter["epoch"], letter["records"]) == (2, "00000000000000ff", [[10, 12], [20, 21]])
    assert (await admin.get(f"/dead-letters?hop=processor&cursor={page['next']}")).json()["count"] == 1
    assert (await admin.get(f"/dead-letters/{letter['seq']}")).json()["data"] == "//8="
    job = (await admin.post("/dead-letters/replay", json={"hop": "processor"})).json()
    assert (job["kind"], job["state"], job["total"]) == ("dead-letters", "waiting", 2)
    assert (await admin.get(f"/jobs/{job['number']}")).json() == job
    assert (await admin.get("/jobs?state=waiting")).json()["items"] == [job]
    assert (await admin.post(f"/jobs/{job['number']}/cancel")).json()["cancel_asked"] is True
    assert (await admin.post("/dead-letters/replay", json={"seq": 999_999})).status_code == 404
    viewer, stranger = await api.user("viewer", demo="viewer"), await api.user("stranger")
    assert (await viewer.post("/dead-letters/replay", json={})).status_code == 403
    assert (await viewer.post(f"/jobs/{job['number']}/cancel")).status_code == 403
    assert (await stranger.get(f"/jobs/{job['number']}?project_id=demo")).status_code == 404
