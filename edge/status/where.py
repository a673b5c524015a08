"""Where a record is, as the gateway knows it: GET /where?id=…

An id is a message's (a UUID), or a record's: its epoch in hexadecimal, a slash or colon, its number. A message's id
that came of a message key in its payload says nothing of its record: for those, the records that wait are decoded.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Final
from uuid import UUID

import msgspec

from protocols.block import open_block
from protocols.errors import WireError
from protocols.ids import RecordName, record_of
from protocols.shipment import Run, record_places
from sync.log.log import Log
from sync.resolve import Resolver

SEARCH_S: Final = 3.0
"""A search among the records that wait ends after this long, which is some hundred thousand of them."""

SEARCH_BLOCKS: Final = 8
SEARCH_BYTES: Final = 16 * 1024
"""Decoded at once, which takes some milliseconds; then devices get their turn."""

_RECORD: Final = re.compile(r"(?:0x)?([0-9a-fA-F]{1,16})[/:](\d{1,13})")


class UnreadableIdError(ValueError):
    """It is the id of nothing."""


class Where(msgspec.Struct, frozen=True):
    """The place of a record, or of the record that carries a message."""

    id: str
    place: str
    """`logged` (it waits), `in flight`, `accepted` (the cloud has it), `evicted`, `damaged`, `unknown`."""
    text: str
    """The same as a sentence."""
    epoch: str | None
    """Of the record, sixteen hexadecimal digits; None: not known."""
    seq: int | None
    index: int | None
    """Of the message in its record."""
    searched: int
    """Records that were decoded to find it."""
    refused: dict[str, int]
    """For one that is unknown: records that did not get into the log since the start, by reason. They have no id."""


_TEXTS: Final = {
    "logged": "in the log: it waits to be sent",
    "in flight": "in flight: sent, and the cloud has not answered yet",
    "accepted": "accepted: the cloud has it",
    "evicted": "evicted: the log was full, and it was among the oldest; the cloud is told of the gap",
    "damaged": "damaged: the disk does not give it back; the cloud is told of the gap",
    "unknown": "unknown here: it was never in this log, or the cloud has had it for so long that the log forgot it",
}


async def where(
    text: str, log: Log, *, resolver: Callable[[], Resolver], refused: Callable[[], dict[str, int]]
) -> Where:
    """`resolver`: one of now; `refused`: as in the answer. Raises UnreadableIdError."""
    written = _RECORD.fullmatch(text)
    searched = 0
    index: int | None = None
    found: RecordName | None
    if written is not None:
        found = RecordName(int(written[1], 16), int(written[2]), 0)
    else:
        try:
            message_id = UUID(text).bytes
        except ValueError:
            raise UnreadableIdError(
                f"{text!r} is neither a message's id (a UUID) nor a record's (epoch/number)"
            ) from None
        found = record_of(message_id)
        if found is None:
            found, searched = await _search(log, message_id, resolver)
        index = None if found is None else found.index
    place = "unknown" if found is None else log.where(found.epoch, found.seq)
    return Where(
        id=text,
        place=place,
        text=_TEXTS[place],
        epoch=None if found is None else f"{found.epoch:016x}",
        seq=None if found is None else found.seq,
        index=index,
        searched=searched,
        refused=refused() if place == "unknown" else {},
    )


async def _search(log: Log, message_id: bytes, resolver: Callable[[], Resolver]) -> tuple[RecordName | None, int]:
    """Among the records that wait or are in flight, and how many were looked at."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + SEARCH_S
    reader = log.reader("where")
    searched = 0
    try:
        while reader.behind_bytes and loop.time() < until_s:
            for block in await reader.next(SEARCH_BLOCKS, SEARCH_BYTES):
                found, records = _look_in(block, message_id, resolver())
                searched += records
                if found is not None:
                    return found, searched
                await asyncio.sleep(0)
    except OSError:
        return None, searched  # as far as the disk gives it back
    finally:
        reader.close()
    return None, searched


def _look_in(block: bytes, message_id: bytes, resolver: Resolver) -> tuple[RecordName | None, int]:
    try:
        head, batches = open_block(block)
    except WireError:
        return None, 0
    resolver.add(Run(0, head.epoch, head.first_seq, head.records), batches)
    messages = resolver.finish()
    ids = messages.ids
    for place in range(len(messages)):
        if ids[16 * place : 16 * place + 16] == message_id:
            run, seq = record_places(messages.runs)[messages.record[place]]
            return RecordName(run.epoch, seq, messages.message_index[place]), head.records
    return None, head.records
