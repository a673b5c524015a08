"""The cloud's stages one by one: decode and resolve, JetStream, PostgreSQL; each beside its bare means in one run."""

from __future__ import annotations

import asyncio
import io
import random
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

import asyncpg
import msgspec
import nats
import uvloop

from benchmarks.row import Row
from benchmarks.telemetry import payload
from cloud.db import sources
from cloud.db.database import Database
from cloud.db.history_copy import COLUMNS, pack_history
from cloud.db.migrate import migrate
from cloud.db.postgres_store import PostgresStore
from cloud.engines import Engines, EngineSettings
from cloud.model.attribute import Attribute
from cloud.services.resolving import resolve
from cloud.services.transponder import Transponder
from cloud.topics import DEFAULT_PROCESSOR, TOPICS
from protocols.batch import BatchKey, RecordBatch, encode_records
from protocols.block import encode_block, open_block
from protocols.codecs import CodecSpec
from protocols.messages import Clock, ClockState, Lane, Origin, Priority
from protocols.shipment import Consignment, MessageBatch, Run, encode_messages, encode_shipment
from sync.bus.jetstream import JetStreamBus
from sync.registry import Alias, Blueprint, Device, Network, Registry, RegistryChange
from sync.resolve import Resolver

DEVICES: Final = 200
ROWS: Final = 500
"""Messages in a block."""
PER_TRANSACTION: Final = 10
"""Blocks in one transaction of the transponder."""
PUBLISHES_IN_FLIGHT: Final = 16


ATTRIBUTES: Final = {
    "temperature": Attribute("number", unit="°C", minimum=-40, maximum=120),
    "pressure": Attribute("number", unit="bar", minimum=0),
}
"""Of the payloads' fields, with limits."""


def rows(seconds: float) -> list[Row]:
    return [_decode_and_resolve(seconds), _look_at_values(seconds), *uvloop.run(_engines(seconds))]


def _registry(attributes: Mapping[str, Attribute] = MappingProxyType({})) -> Registry:
    registry = Registry("bench")
    registry.apply(
        RegistryChange(
            "bench",
            0,
            1,
            (
                Network("bench", spec=CodecSpec(key_paths=())),
                Network("keyed", spec=CodecSpec(key_paths=("boot", "seq"))),
            ),
            (Blueprint("b", attributes=msgspec.json.encode(dict(attributes)).decode()),),
            tuple(
                Device(n + 1, "s", "b", (Alias("bench", "serial", f"d{n}"), Alias("keyed", "serial", f"d{n}")))
                for n in range(DEVICES)
            ),
        )
    )
    return registry


def _batches(network: str, rows_each: int) -> Iterator[RecordBatch]:
    generator = random.Random(7)
    origins = [Origin(network, "serial", f"d{n}", "up", "", "mqtt") for n in range(DEVICES)]
    start_ms = time.time_ns() // 1_000_000
    sequence = 0
    while True:
        payloads = [payload(generator, sequence + row) for row in range(rows_each)]
        yield RecordBatch(
            BatchKey(1, sequence),
            Clock(1, 1, ClockState.SYNCHRONIZED),
            start_ms + sequence // 30,
            origins,
            [row % DEVICES for row in range(rows_each)],
            [row // 30 for row in range(rows_each)],
            payloads,
        )
        sequence += rows_each


def _block(batch: RecordBatch, epoch: int) -> tuple[Run, bytes]:
    first = batch.key.counter
    data = encode_block(
        [encode_records(batch)],
        epoch=epoch,
        first_seq=first,
        records=len(batch),
        newest_ms=batch.base_ms,
        priority=Priority.TELEMETRY,
    )
    return Run(0, epoch, first, len(batch)), data


def _decode_and_resolve(seconds: float) -> Row:
    registry = _registry()
    made = [_block(batch, 1) for batch, _ in zip(_batches("bench", ROWS), range(20), strict=False)]
    opened = [(run, open_block(block)[1]) for run, block in made]
    payloads = [payload for _, batches in opened for batch in batches for payload in batch.payloads]
    parse, write = msgspec.json.Decoder().decode, msgspec.json.Encoder().encode

    def ours() -> None:
        resolver = Resolver(registry)
        for run, batches in opened:
            resolver.add(run, batches)
        resolver.finish()

    def bare() -> None:
        for item in payloads:
            write(parse(item))

    return Row(
        "decode and resolve",
        _microseconds(ours, len(payloads), seconds),
        "µs/message",
        goal=1.0,
        at_most=True,
        baseline="msgspec parses and writes the JSON",
        baseline_measured=_microseconds(bare, len(payloads), seconds),
    )


def _look_at_values(seconds: float) -> Row:
    """What a blueprint with limits costs the processor beside one without attributes."""
    made = [_block(batch, 1) for batch, _ in zip(_batches("bench", ROWS), range(20), strict=False)]
    opened = [(run, open_block(block)[1]) for run, block in made]

    def work(attributes: dict[str, Attribute]) -> Callable[[], object]:
        registry = _registry(attributes)
        return lambda: resolve(registry, opened, {})

    return Row(
        "decode, resolve and look at values",
        _microseconds(work(ATTRIBUTES), 20 * ROWS, seconds),
        "µs/message",
        baseline="a blueprint without attributes",
        baseline_measured=_microseconds(work({}), 20 * ROWS, seconds),
    )


def _microseconds(work: Callable[[], object], messages: int, seconds: float) -> float:
    """CPU of one round, the best of those that fit in the time."""
    best, end = float("inf"), time.monotonic() + seconds
    while time.monotonic() < end:
        started = time.process_time()
        work()
        best = min(best, time.process_time() - started)
    return best / messages * 1e6


async def _engines(seconds: float) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        Path(folder).chmod(0o755)
        async with Engines(EngineSettings(data_dir=Path(folder)), lambda part, text: None) as engines:
            jetstream = await _jetstream(engines.nats_url, seconds)
            plain = await _postgres(engines.database_url, "bench", seconds)
            keyed = await _postgres(engines.database_url, "keyed", seconds)
        return [jetstream, plain, keyed]


async def _jetstream(url: str, seconds: float) -> Row:
    """Shipments of 100 messages; the bare client publishes the same bytes and waits for the same answer."""
    data = encode_shipment([Consignment(1, _block(next(_batches("bench", 100)), 1)[1])])
    bus = await JetStreamBus.connect(url, TOPICS)
    ours = await _rate(lambda: bus.publish(DEFAULT_PROCESSOR, data, lane=Lane.LIVE), seconds)
    await bus.close()
    client = await nats.connect(url)
    bare_stream = client.jetstream()
    await bare_stream.add_stream(name="bare", subjects=["bare"], max_bytes=1 << 30)

    async def publish() -> None:
        await bare_stream.publish("bare", data)

    bare = await _rate(publish, seconds)
    await client.close()
    return Row(
        "JetStream, 100 messages a publish, synced",
        ours * 100,
        "messages/s",
        goal=150_000,
        baseline="nats-py publishes the same bytes",
        baseline_measured=bare * 100,
    )


async def _rate(work: Callable[[], Awaitable[None]], seconds: float) -> float:
    """Calls a second, PUBLISHES_IN_FLIGHT at a time."""
    done = 0
    end = time.monotonic() + seconds

    async def repeat() -> None:
        nonlocal done
        while time.monotonic() < end:
            await work()
            done += 1

    started = time.monotonic()
    await asyncio.gather(*(repeat() for _ in range(PUBLISHES_IN_FLIGHT)))
    return done / (time.monotonic() - started)


async def _postgres(url: str, network: str, seconds: float) -> Row:
    """The transponder's transaction, history and current and accounting; the bare one only copies the same rows into a
    table without any index."""
    admin = await asyncpg.connect(url)
    await admin.execute(f"CREATE DATABASE bench_{network}")
    await admin.close()
    database = await Database.connect(url.rsplit("/", 1)[0] + f"/bench_{network}")
    await migrate(database)
    async with database.transaction() as conn:
        await conn.execute("INSERT INTO project (id, name) VALUES ('bench', 'Bench')")
        source_id = await sources.add(conn, "bench", "rest")
        await conn.execute("CREATE TABLE bare (LIKE history)")
    made = _resolved(network, source_id, int(seconds * 200) * PER_TRANSACTION)
    transponder = Transponder(lambda: time.time_ns() // 1_000_000)
    store = PostgresStore(database)
    ours = await _through(made, seconds, lambda part: _written(store, transponder, part))
    bare = await _through(made, seconds, lambda part: _copied(database, part))
    await database.close()
    return Row(
        f"PostgreSQL, history and current{', message keys' if network == 'keyed' else ''}",
        ours,
        "messages/s",
        goal=60_000,
        baseline="bare COPY into a table without index",
        baseline_measured=bare,
    )


def _resolved(network: str, source_id: int, blocks: int) -> list[MessageBatch]:
    registry = _registry()
    made = []
    for batch, _ in zip(_batches(network, ROWS), range(blocks), strict=False):
        resolver = Resolver(registry)
        resolver.add(Run(source_id, 1, batch.key.counter, len(batch)), [batch])
        made.append(resolver.finish())
    return made


async def _through(
    made: list[MessageBatch], seconds: float, work: Callable[[list[MessageBatch]], Awaitable[None]]
) -> float:
    done = 0
    started = time.monotonic()
    for at in range(0, len(made), PER_TRANSACTION):
        part = made[at : at + PER_TRANSACTION]
        await work(part)
        done += sum(map(len, part))
        if time.monotonic() - started > seconds:
            break
    return done / (time.monotonic() - started)


async def _written(store: PostgresStore, transponder: Transponder, part: list[MessageBatch]) -> None:
    data = [encode_messages(batch) for batch in part]
    await store.run(lambda tx: transponder.handle(tx, data, Lane.LIVE))


async def _copied(database: Database, part: list[MessageBatch]) -> None:
    async with database.transaction() as conn:
        for batch in part:
            packed = pack_history(batch, range(len(batch)))
            await conn.copy_to_table("bare", source=io.BytesIO(packed), columns=COLUMNS, format="binary")
