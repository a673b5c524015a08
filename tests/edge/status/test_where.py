"""Where a record is: the truth, for each place that the gateway knows."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import msgspec
import pytest

from edge.status.where import UnreadableIdError, Where, where
from protocols.batch import encode_records
from protocols.codecs import CodecSpec
from protocols.ids import KeySpace, record_message_id
from protocols.messages import GapKind, Priority
from sync.bus.zeromq import ZeroMqBus
from sync.log.log import Entry, Log
from sync.registry import Network, Registry, RegistryChange
from sync.resolve import Resolver
from tests.edge.site import Site, command
from tests.edge.test_recorder import batch
from tests.sync.log.making import START_MS, opened
from tests.sync.log.simulated_disk import SimulatedDisk

PUMPS = Registry("demo")
PUMPS.apply(RegistryChange("demo", 0, 1, (Network("quay", spec=CodecSpec("json", key_paths=("boot", "seq"))),)))


async def found(log: Log, text: str) -> Where:
    return await where(text, log, resolver=lambda: Resolver(PUMPS), refused=lambda: {"limit": 2})


async def add(log: Log, counter: int, *payloads: bytes) -> None:
    made = batch(counter, list(payloads))
    await log.append([Entry(encode_records(made), made.key, len(payloads), START_MS, Priority.TELEMETRY)])


@contextlib.asynccontextmanager
async def a_log() -> AsyncIterator[Log]:
    """Six records, of which the numbers say the places."""
    async with opened(SimulatedDisk()) as log:
        for number in range(6):
            await add(log, number, b'{"temperature":%d}' % number)
        epoch, catalog = log.epoch, log._catalog
        segment = catalog.last()
        assert segment is not None
        log.sending(epoch, 1, 2)
        log.accept(epoch, 2, 3)
        catalog.lose(GapKind.EVICTED, segment, [(3, 4)], now_ms=START_MS)
        catalog.lose(GapKind.DAMAGED, segment, [(4, 5)], now_ms=START_MS)
        yield log


@pytest.mark.parametrize(
    ("seq", "place"),
    [
        (0, "logged"),
        (1, "in flight"),
        (2, "accepted"),
        (3, "evicted"),
        (4, "damaged"),
        (5, "logged"),
        (6, "unknown"),
    ],
)
async def test_a_record_is_where_the_log_says_by_any_of_its_names(seq: int, place: str) -> None:
    async with a_log() as log:
        names = (
            str(UUID(bytes=record_message_id(log.epoch, seq, 3))),
            f"{log.epoch:016x}/{seq}",
            f"0x{log.epoch:X}:{seq}",
        )
        for name in names:
            answer = await found(log, name)
            assert (answer.place, answer.epoch, answer.seq) == (place, f"{log.epoch:016x}", seq)
            assert place.removeprefix("logged") in answer.text
            assert answer.refused == ({"limit": 2} if place == "unknown" else {})
        assert (await found(log, names[0])).index == 3


async def test_a_message_with_a_key_is_searched_for_among_what_waits() -> None:
    async with opened(SimulatedDisk()) as log:
        for number in range(4):
            await add(log, number, *(b'{"boot":1,"seq":%d,"temperature":1}' % (10 * number + row) for row in range(3)))
        log.accept(log.epoch, 0, 3)
        log.sending(log.epoch, 6, 9)
        space = KeySpace("demo", "quay", "serial", "pump")

        async def place(seq: int) -> tuple[str, int | None, int]:
            answer = await found(log, str(UUID(bytes=space.message_id((1, seq)))))
            return answer.place, answer.seq, answer.searched

        assert await place(12) == ("logged", 5, 3)
        assert await place(21) == ("in flight", 7, 6)
        assert await place(1) == ("unknown", None, 9), "the cloud has it, and can tell"
        assert await place(99) == ("unknown", None, 9)


@pytest.mark.parametrize("text", ["", "pump-1", "12", "00/x", "/5", "f" * 17 + "/1"])
async def test_what_is_no_id_is_said_to_be_none(text: str) -> None:
    async with opened(SimulatedDisk()) as log:
        with pytest.raises(UnreadableIdError, match="epoch/number"):
            await found(log, text)


@pytest.mark.servers
async def test_the_command_asks_the_running_gateway(tmp_path: Path) -> None:
    site = Site(tmp_path)
    await site.furnish()
    site.write_config()
    async with site.gateway() as gateway:
        bus = ZeroMqBus.connect(gateway.bus)
        made = batch(0, [b'{"temperature":1}'])
        await bus.publish("inbound", encode_records(made), key=made.key)
        await bus.close()
        epoch = (await gateway.accounting()).epochs[-1].epoch

        async def say(*words: str) -> str:
            done = await asyncio.to_thread(command, "where", *words, "--config", site.config_file)
            return done.stdout + done.stderr

        assert "it waits to be sent" in await say(f"{epoch}/0")
        assert msgspec.json.decode(await say(f"{epoch}/0", "--json"), type=Where).place == "logged"
        assert "neither a message's id" in await say("pump-1")
