"""What one gateway's link hands to the cloud: blocks, and what is told beside them, under the gateway's source."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

from cloud.db.database import DatabaseError
from cloud.model.credit import Credit
from cloud.services.credit import CreditWatch
from cloud.services.receiver import Receiver
from protocols.messages import Anchor, Gap, Lane
from sync.bus.contract import BusError
from sync.link import frames
from sync.link.frames import Span, Standing
from sync.link.ports import NotTakenError


class GatewayIntake:
    """sync/link/ports.py's Intake."""

    def __init__(self, receiver: Receiver, source_id: int) -> None:
        self._receiver = receiver
        self._source_id = source_id
        receiver.meet(source_id)

    async def accept(self, lane: Lane, blocks: list[bytes]) -> None:
        with _not_taken():
            await self._receiver.accept(self._source_id, lane, blocks)


class GatewayBooks:
    """sync/link/ports.py's CloudBooks. `tell`: takes the gateway's newest standing."""

    def __init__(self, receiver: Receiver, source_id: int, tell: Callable[[Standing], None]) -> None:
        self._receiver = receiver
        self._source_id = source_id
        self._tell = tell

    async def keep_anchors(self, anchors: Sequence[Anchor]) -> None:
        with _not_taken():
            await self._receiver.keep_anchors(self._source_id, anchors)

    async def keep_gaps(self, gaps: Sequence[Gap]) -> Sequence[Span]:
        with _not_taken():
            return await self._receiver.keep_gaps(self._source_id, gaps)

    async def standing(self, standing: Standing) -> None:
        self._tell(standing)

    async def holdings(self, spans: Sequence[Span]) -> Sequence[Span]:
        with _not_taken():
            return await self._receiver.missing_of(self._source_id, spans)


class GatewayCredit:
    """sync/link/ports.py's CreditFeed: the same for every gateway."""

    def __init__(self, watch: CreditWatch) -> None:
        self._watch = watch

    async def credits(self) -> AsyncIterator[frames.Credit]:
        now = self._watch.credit
        while True:
            yield _frame(now)
            now = await self._watch.changed(now)


def _frame(credit: Credit) -> frames.Credit:
    return frames.Credit(credit.all_bytes, credit.backfill_bytes)


@contextlib.contextmanager
def _not_taken() -> Iterator[None]:
    try:
        yield
    except (BusError, DatabaseError) as error:
        raise NotTakenError("not-durable", str(error)) from None
