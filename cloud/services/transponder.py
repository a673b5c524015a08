"""The transponder: writes history and current."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from cloud.model.claim import rows_by_epoch
from cloud.model.forwarding import derived
from cloud.model.output import Output
from cloud.services.store import Transaction
from cloud.topics import TRANSPONDER, WRITER
from protocols.messages import Lane
from protocols.shipment import Run, concat, decode_messages, encode_messages, restrict

PARTITION_CHECK_MS: Final = 3_600_000
"""Partitions stand ready two weeks ahead; looking once an hour leaves every chance to make them in time."""


class Transponder:
    name = TRANSPONDER
    reads = WRITER
    writes: tuple[str, ...] = ()

    def __init__(self, wall_ms: Callable[[], int]) -> None:
        """`wall_ms`: the time, Unix milliseconds."""
        self._wall_ms = wall_ms
        self._partitions_due_ms = 0

    async def handle(self, tx: Transaction, batch: Sequence[bytes], lane: Lane) -> list[Output]:
        now_ms = self._wall_ms()
        if now_ms >= self._partitions_due_ms:
            await tx.ensure_partitions(now_ms)
            self._partitions_due_ms = now_ms + PARTITION_CHECK_MS
        messages = concat([decode_messages(data) for data in batch])
        claimed = await tx.claim(self.name, messages.runs, held=False)
        if not claimed.complete:
            messages = restrict(messages, claimed.runs)
        stored = await tx.store(messages, range(len(messages)))
        whole, rows = messages, stored
        if messages.forwards:
            made = derived(messages, stored)
            await tx.store(made, range(len(made)))
            for name, number in rows_by_epoch(made, range(len(made))).items():
                claimed.count(*name, "derived", number)
            whole, rows = concat([messages, made]), [*stored, *range(len(messages), len(messages) + len(made))]
        await tx.update_current(whole, rows)
        if whole.misfits:
            await tx.add_misfits(whole, rows)
        kept = rows_by_epoch(messages, stored)
        for name, number in rows_by_epoch(messages, range(len(messages))).items():
            claimed.count(*name, "stored", kept.get(name, 0))
            claimed.count(*name, "repeated", number - kept.get(name, 0))
        await tx.settle(claimed)
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

    async def bury(self, tx: Transaction, data: bytes, reason: str) -> None:
        messages = decode_messages(data)
        claimed = await tx.claim(self.name, messages.runs)
        messages = restrict(messages, claimed.runs)
        for name, number in rows_by_epoch(messages, range(len(messages))).items():
            claimed.count(*name, "dead", number)
        await tx.settle(claimed)
        if len(messages):
            await tx.add_dead_letter(
                project_id=messages.targets[0].project_id,
                hop=self.name,
                topic=self.reads,
                runs=messages.runs,
                detail=reason,
                data=data,
            )
