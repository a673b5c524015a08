"""The transponder: writes history and current."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from cloud.db import current, dead_letters, history
from cloud.db.database import Connection
from cloud.db.progress import claim
from cloud.services.service import Output
from cloud.topics import TRANSPONDER, WRITER
from protocols.messages import Lane
from protocols.shipment import Run, concat, decode_messages, encode_messages, record_places, restrict

PARTITION_CHECK_S = 3600.0
"""Partitions stand ready two weeks ahead; looking once an hour leaves every chance to make them in time."""


class Transponder:
    name = TRANSPONDER
    reads = WRITER
    writes: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._partitions_due_s = 0.0

    async def handle(self, conn: Connection, batch: Sequence[bytes], lane: Lane) -> list[Output]:
        if time.monotonic() >= self._partitions_due_s:
            await history.ensure_partitions(conn, time.time_ns() // 1_000_000)
            self._partitions_due_s = time.monotonic() + PARTITION_CHECK_S
        messages = concat([decode_messages(data) for data in batch])
        claimed = await claim(conn, self.name, messages.runs)
        if not claimed.complete:
            messages = restrict(messages, claimed.runs)
        stored = await history.store(conn, messages, range(len(messages)))
        await current.update(conn, messages, stored)
        places = record_places(messages.runs)
        sources = [(run.source_id, run.epoch) for run, _ in places]
        arrived = Counter(sources[place] for place in messages.record)
        kept = Counter(sources[messages.record[i]] for i in stored)
        for source, number in arrived.items():
            claimed.count(*source, "stored", kept[source])
            claimed.count(*source, "repeated", number - kept[source])
        await claimed.settle(conn)
        return []

    def split(self, data: bytes) -> list[bytes]:
        messages = decode_messages(data)
        if len(messages.runs) == 1:
            return [data]
        none: list[Run] = []
        return [
            encode_messages(
                restrict(messages, [[run] if place == kept else none for place, run in enumerate(messages.runs)])
            )
            for kept in range(len(messages.runs))
        ]

    async def bury(self, conn: Connection, data: bytes, reason: str) -> None:
        messages = decode_messages(data)
        claimed = await claim(conn, self.name, messages.runs)
        messages = restrict(messages, claimed.runs)
        places = record_places(messages.runs)
        for place in messages.record:
            run, _ = places[place]
            claimed.count(run.source_id, run.epoch, "dead", 1)
        await claimed.settle(conn)
        if len(messages):
            await dead_letters.add(
                conn,
                project_id=messages.targets[0].project_id,
                hop=self.name,
                topic=self.reads,
                detail=reason,
                data=data,
            )
