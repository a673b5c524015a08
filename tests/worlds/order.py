"""The order in which one connection brings blocks: live as written; backfill, by class, within each stretch."""

from __future__ import annotations

from protocols.block import read_head
from protocols.messages import Lane, Priority
from sync.link.ports import Intake, NotTakenError
from tests.worlds.gateway_book import GatewayBook
from tests.worlds.laws import Laws


class OrderWatch:
    """The Intake of sync/link/ports.py, in front of another one."""

    def __init__(self, intake: Intake, book: GatewayBook, laws: Laws) -> None:
        self._intake = intake
        self._book = book
        self._laws = laws
        self._live = -1
        self._backfill: dict[tuple[str, Priority], int] = {}
        """By segment and class: the newest that came."""
        self._refused = False
        """What was refused comes again, behind what came after it."""

    async def accept(self, lane: Lane, blocks: list[bytes]) -> None:
        for block in blocks:
            self._check(lane, block)
        try:
            await self._intake.accept(lane, blocks)
        except NotTakenError:
            self._refused = True
            raise

    def _check(self, lane: Lane, block: bytes) -> None:
        head = read_head(block)
        written = self._book.blocks.get((head.epoch, head.first_seq))
        if written is None:
            return  # cut off while it was written, and found whole afterwards
        where = f"{self._book.name} {head.epoch:x}/{head.first_seq}"
        if lane is Lane.LIVE:
            if written.number <= self._live:
                self._laws.broken("live keeps its order", f"{where} came late")
            self._live = written.number
        elif not self._refused:
            name = (written.segment, head.priority)
            if written.number <= self._backfill.get(name, -1):
                self._laws.broken("backfill keeps the order of a stretch", f"{where} came late")
            self._backfill[name] = written.number
