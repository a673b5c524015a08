"""*Where is my message?* Messages picked at random in each state that there is, on real processes: the answers are what
was brought about, and not what the parts believe."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edge.config import LOG_BYTES_MIN
from firmware_sim.faults.fault import Direction, Fault, Kind
from protocols.block import HEAD_BYTES, MAGIC, read_head
from protocols.errors import WireError
from protocols.limits import PAYLOAD_BYTES_MAX
from sync.log.settings import SEGMENT_BYTES_MIN
from tests.end_to_end.device import Device
from tests.end_to_end.engines import engine_stopped
from tests.end_to_end.site import COMMANDS, Process
from tests.end_to_end.whereabouts import ASKED, Whereabouts

pytestmark = pytest.mark.timeout(300)

SENT = 12
"""In a state: more than are asked for."""
SMALLEST_LOG = {"max_bytes": LOG_BYTES_MIN, "segment_bytes": SEGMENT_BYTES_MIN}
FILL_BYTES = 150_000
"""Of random bytes in a message: a log is full after some hundred."""


@asynccontextmanager
async def whereabouts(folder: Path, **settings: int) -> AsyncIterator[Whereabouts]:
    async with Whereabouts(folder, log=settings or None) as site:
        await site.set_up()
        yield site


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def test_what_has_arrived_is_where_it_was_brought_to(tmp_path: Path) -> None:
    async with whereabouts(tmp_path) as site:
        await stored(site)
        await waits_in_the_inbox(site)
        await is_rejected(site)
        await stopped_by_a_route(site)
        await is_refused(site)
        await site.gateway.stop()
        await site.start_gateway()
        await site.until(site.link_is_up)
        await repeated(site)


async def stored(site: Whereabouts) -> None:
    """In a row; by its record, by its id, and by device and time."""
    pump = await site.device("plain", "pump-1")
    numbers = await site.send(pump, SENT)

    async def all_there() -> bool:
        return len(await site.history("pump-1")) == SENT

    await site.until(all_there)
    rows = await site.history("pump-1")
    picked = await site.records(numbers)
    for (number, record), place in zip(picked.items(), await site.all_at_cloud(picked, "stored"), strict=True):
        row = rows[number]
        assert (place["facts"]["id"], place["facts"]["record"]) == (row["id"], record)
        assert place["facts"]["event_time"] == row["event_time"]
        assert place["since_time"] == row["received_time"]
        assert [one["facts"]["id"] for one in await site.at_cloud(row["id"])] == [row["id"]]
        by_time = await site.by_time("plain:serial:pump-1", row["received_time"])
        assert row["id"] in [one["facts"]["id"] for one in by_time]
    await site.all_at_edge(picked, "accepted")
    await site.all_at_edge({number: rows[number]["id"] for number in picked}, "accepted")


async def waits_in_the_inbox(site: Whereabouts) -> None:
    stranger = Device(site.mqtt_ports["plain"], "stranger", site.secrets["plain"])
    picked = await site.records(await site.send(stranger, SENT))
    for place in await site.all_at_cloud(picked, "inbox"):
        assert place["facts"]["name"] == "plain:serial:stranger"
    await site.all_at_edge(picked, "accepted")
    items = (await site.get("inbox?limit=1000"))["items"]
    assert {item["data"]["n"] for item in items} >= picked.keys()
    await site.all_at_cloud({item["data"]["n"]: item["id"] for item in items[:ASKED]}, "inbox")


async def is_rejected(site: Whereabouts) -> None:
    garbler = await site.device("plain", "garbler")
    async with garbler.connected():
        for number in range(SENT):
            assert await garbler.publish(b"no JSON %d" % number)

    async def all_there() -> bool:
        return (await site.get("rejects"))["count"] == SENT

    await site.until(all_there)
    items = (await site.get("rejects"))["items"]
    picked = {place: item["record"] for place, item in enumerate(site.chance.sample(items, ASKED))}
    for place, item in zip(await site.all_at_cloud(picked, "rejected"), picked, strict=True):
        assert "not JSON" in place["text"], item
    await site.all_at_edge(picked, "accepted")


async def stopped_by_a_route(site: Whereabouts) -> None:
    await site.post("blueprints", {"id": "mute", "name": "Mute", "route": {"device_data_event": []}})
    mute = await site.device("plain", "mute-1", blueprint="mute")
    began_ms = now_ms()
    picked = await site.records(await site.send(mute, SENT))
    await site.all_at_cloud(picked, "stopped")
    await site.all_at_edge(picked, "accepted")
    assert (await site.get("accounting"))["total"]["stopped"] == SENT
    (likeliest, *_) = await site.by_time("plain:serial:mute-1", began_ms)
    assert (likeliest["state"], likeliest["certain"]) == ("stopped", False)


async def is_refused(site: Whereabouts) -> None:
    """Before the log: nobody gave it a number, so it is asked for by device and time."""
    greedy = await site.device("plain", "greedy")
    times = []
    for _ in range(ASKED):
        times.append(now_ms())
        assert await greedy.connect() == 0
        assert not await greedy.publish(b"x" * (2 * PAYLOAD_BYTES_MAX))
        await greedy.close()
    assert "greedy" not in {entry["alias"] for entry in (await site.get("rejects"))["items"]}
    for time_ms in times:

        async def is_told(time_ms: int = time_ms) -> bool:
            return "refused" in {place["state"] for place in await site.by_time("plain:serial:greedy", time_ms)}

        await site.until(is_told, 15.0)
        places = await site.by_time("plain:serial:greedy", time_ms)
        assert {place["state"] for place in places} == {"refused"}
        assert all(abs(place["since_time"] - time_ms) < 2_000 for place in places)
    said = await site.command(
        "tidegate-cloud", "where", "--device", "plain:serial:greedy", "--time", str(times[0]), "--project", "p",
        "--config", site.cloud_toml,
    )  # fmt: skip
    assert said.startswith("refused")
    assert {place["state"] for place in await site.by_time("plain:serial:greedy", times[0] - 3_600_000)} == {"unknown"}


async def repeated(site: Whereabouts) -> None:
    """By its message key: the second record brought nothing new."""
    clerk = await site.device("keyed", "clerk")
    async with clerk.connected():
        for number in range(SENT):
            assert await clerk.send(boot=1, seq=number, n=1_000_000 + number)

        async def all_there() -> bool:
            return len(await site.history("clerk", network="keyed")) == SENT

        await site.until(all_there)
        for number in range(SENT):
            assert await clerk.send(boot=1, seq=number, n=2_000_000 + number)
    first = await site.records([1_000_000 + number for number in range(SENT)])
    again = await site.records([2_000_000 + number for number in range(SENT)])
    await site.all_at_cloud(first, "stored")
    await site.all_at_cloud(again, "repeated")
    ids = {number: row["id"] for number, row in (await site.history("clerk", network="keyed")).items()}
    await site.all_at_cloud(ids, "stored")


async def test_what_is_on_its_way_is_where_it_was_held_up(tmp_path: Path) -> None:
    async with Whereabouts(tmp_path) as site:
        command: list[str | Path] = [COMMANDS / "tidegate-cloud", "run", "--config", site.cloud_toml]
        site.platform.cloud = Process("cloud", [*command, "api", "receiver", "replay"], tmp_path / "cloud.log")
        workers = {
            name: Process(name, [*command, name], tmp_path / f"{name}.log") for name in ("processor", "transponder")
        }
        try:
            await site.set_up()
            pump = await site.device("plain", "pump-1")
            streamed = await waits_in_streams(site, pump, workers)
            await its_answer_is_lost(site, pump)
            held = await waits_for_an_answer(site, pump)

            async def all_there() -> bool:
                rows = await site.history("pump-1")
                return all(number in rows for number in (*streamed, *held))

            await site.until(all_there)
        finally:
            for worker in workers.values():
                await worker.stop()


async def waits_in_streams(site: Whereabouts, pump: Device, workers: dict[str, Process]) -> list[int]:
    """First nobody decodes, then nobody writes."""
    numbers = await site.send(pump, SENT)
    picked = await site.records(numbers)
    for place in await site.all_at_cloud(picked, "stream"):
        assert (place["facts"]["topic"], place["facts"]["hop"]) == ("default-processor", "processor")
    await site.all_at_edge(picked, "accepted")
    await workers["processor"].start()

    async def decoded() -> bool:
        return (await site.get("accounting"))["total"]["decoded"] == SENT

    await site.until(decoded)
    for place in await site.all_at_cloud(picked, "stream"):
        assert (place["facts"]["topic"], place["facts"]["hop"]) == ("writer", "transponder")
    await workers["transponder"].start()
    await site.all_at_cloud(picked, "stored")
    return numbers


async def its_answer_is_lost(site: Whereabouts, pump: Device) -> None:
    """What is sent arrives, and nothing comes back: it is in history already, and the gateway cannot know it."""
    site.proxy.set_fault(Fault(Kind.BLACK_HOLE, Direction.DOWN))
    picked = await site.records(await site.send(pump, SENT))
    await site.all_at_cloud(picked, "stored")
    await site.all_at_edge(picked, "in flight")
    await site.mend()

    async def all_told() -> bool:
        return {await site.at_edge(record) for record in picked.values()} == {"accepted"}

    await site.until(all_told)
    assert (await site.get("accounting"))["total"]["stored"] == 2 * SENT


async def waits_for_an_answer(site: Whereabouts, pump: Device) -> list[int]:
    """The cloud's streams stand still, so that it answers nobody: what is sent is in flight, what has no room in the
    window waits in the log; and when the link is cut, all of it is in the log again."""
    with engine_stopped(site.folder, "nats-server"):
        sent = await site.send(pump, SENT)
        in_flight = await site.records(sent)

        async def all_sent() -> bool:
            return {await site.at_edge(record) for record in in_flight.values()} == {"in flight"}

        await site.until(all_sent, 10.0)
        await site.all_at_edge(in_flight, "in flight")
        await site.all_at_cloud(in_flight, "in-flight")

        noise = [await site.send(pump, 1, fill=noise_text()) for _ in range(40)]
        behind = await site.send(pump, SENT)
        logged = await site.records(behind)
        await site.all_at_edge(logged, "logged")
        for place in await site.all_at_cloud(logged, "log"):
            assert place["facts"]["gateway"] == "quay-1"
        await site.all_at_edge(in_flight, "in flight")

        site.cut()

        async def down() -> bool:
            return not await site.link_is_up()

        await site.until(down)
        await site.all_at_edge(in_flight | logged, "logged")
    await site.mend()
    return [*sent, *behind, *(number for one in noise for number in one)]


def noise_text() -> str:
    return base64.b64encode(os.urandom(FILL_BYTES)).decode()


async def test_what_is_lost_is_in_the_gap_that_tells_of_it(tmp_path: Path) -> None:
    async with whereabouts(tmp_path, **SMALLEST_LOG) as site:
        pump = await site.device("plain", "pump-1")
        site.cut()
        oldest = await site.records(await site.send(pump, SENT))
        await site.all_at_edge(oldest, "logged")

        async def evicts() -> bool:
            await site.send(pump, 5, fill=noise_text())
            return bool((await site.gateway_status())["totals"]["evicted"] >= SENT)

        await site.until(evicts)
        spoilt = await site.records(await site.send(pump, SENT))
        kept = await site.records(await site.send(pump, SENT))
        await site.gateway.kill()
        flip_bits(tmp_path / "gateway" / "log", set(spoilt.values()))
        await site.start_gateway()
        assert not {*oldest, *spoilt} & (await site.exported()).keys()
        await site.all_at_edge(oldest, "evicted")
        await site.all_at_edge(spoilt, "damaged")
        await site.all_at_edge(kept, "logged")

        await site.mend()
        for place in await site.all_at_cloud(oldest, "evicted"):
            assert place["certain"]
            assert place["facts"]["gateway"] == "quay-1"
        for place in await site.all_at_cloud(spoilt, "damaged"):
            assert place["certain"]
        await site.all_at_cloud(kept, "stored")
        rows = await site.history("pump-1")
        assert kept.keys() <= rows.keys()
        assert not rows.keys() & {*oldest, *spoilt}
        totals = (await site.gateway_status())["totals"]
        account = (await site.get("accounting"))["total"]
        assert (account["evicted"], account["damaged"]) == (totals["evicted"], totals["damaged"])
        gaps = (await site.get("gaps?limit=1000"))["items"]
        assert sum(gap["records"] for gap in gaps) == totals["evicted"] + totals["damaged"]


def flip_bits(log: Path, records: set[str]) -> None:
    """In the body of each block that holds one of the records."""
    wanted = {(int(epoch, 16), int(seq)) for epoch, _, seq in (record.partition("/") for record in records)}
    spoilt = 0
    for path in log.glob("*.seg"):
        data = bytearray(path.read_bytes())
        at = data.find(MAGIC)
        while at >= 0:
            try:
                head = read_head(data, at)
            except WireError:
                at = data.find(MAGIC, at + 1)
                continue
            if any(epoch == head.epoch and head.first_seq <= seq < head.end_seq for epoch, seq in wanted):
                data[at + HEAD_BYTES + head.body_bytes // 2] ^= 0x10
                spoilt += 1
            at = data.find(MAGIC, at + head.size)
        path.write_bytes(data)
    assert spoilt
