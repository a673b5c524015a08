"""The REST server: messages that come by HTTP become records of a source of their own, one a project.

It is to HTTP clients what a gateway is to devices: an epoch for each start of its process, consecutive numbers, an
answer only once the records are durable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec

from protocols.batch import BatchKey, RecordBatch, check_origin, encode_records
from protocols.block import encode_block
from protocols.codecs.envelope import Envelope
from protocols.errors import LimitError
from protocols.limits import BATCH_BYTES_MAX, BATCH_RECORDS_MAX, PAYLOAD_BYTES_MAX
from protocols.messages import Clock, ClockState, Lane, Origin, Priority
from sync.registry import Registry

MESSAGES_MAX: Final = BATCH_RECORDS_MAX
"""Messages in one request: they become one batch."""
_BATCH_ROOM: Final = 64 * 1024
"""Kept free in a batch for names and columns beside the payloads."""


class IngestMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One message as an HTTP client sends it."""

    network_id: str
    alias: str
    data: msgspec.Raw
    alias_key: str | None = None
    """None: the network's."""
    id: str | None = None
    """The client's own, for sending again safely: unique for this device name."""
    time: int | float | str | None = None
    """Unix milliseconds, Unix seconds or RFC 3339."""


class IngestResult(msgspec.Struct, frozen=True):
    record: str
    """epoch/seq, to ask for it later."""
    device_known: bool
    rejected: str | None = None
    """Why it does not decode; it is recorded all the same."""


class Accepts(Protocol):
    """The receiver, as far as it concerns us."""

    async def accept(self, source_id: int, lane: Lane, blocks: Sequence[bytes]) -> None: ...


class RestServer:
    def __init__(self, receiver: Accepts, random_63: Callable[[], int], wall_ms: Callable[[], int]) -> None:
        self._receiver = receiver
        self._wall_ms = wall_ms
        self._epoch = random_63()
        self._clock = Clock(random_63(), 0, ClockState.SYNCHRONIZED)
        self._next_seq: dict[int, int] = {}

    async def take(self, source_id: int, registry: Registry, messages: Sequence[IngestMessage]) -> list[IngestResult]:
        """Returns when all of them are durable. Raises LimitError, naming field and limit: nothing was recorded; or
        what the receiver raises: nothing is certain."""
        now_ms = self._wall_ms()
        origins, rows = _columns(registry, messages)
        seq = self._next_seq.get(source_id, 0)
        self._next_seq[source_id] = seq + len(rows)
        batch = RecordBatch(
            BatchKey(self._epoch, seq),
            self._clock,
            now_ms,
            list(origins),
            [origins[origin] for origin, _ in rows],
            [0] * len(rows),
            [payload for _, payload in rows],
        )
        block = encode_block(
            [encode_records(batch)],
            epoch=self._epoch,
            first_seq=seq,
            records=len(rows),
            newest_ms=now_ms,
            priority=Priority.TELEMETRY,
        )
        await self._receiver.accept(source_id, Lane.LIVE, [block])
        return [
            _result(registry, f"{self._epoch:016x}/{seq + place}", origin, payload)
            for place, (origin, payload) in enumerate(rows)
        ]


def _columns(
    registry: Registry, messages: Sequence[IngestMessage]
) -> tuple[dict[Origin, int], list[tuple[Origin, bytes]]]:
    if not 0 < len(messages) <= MESSAGES_MAX:
        raise LimitError(f"{len(messages)} messages in one request; allowed are 1 to {MESSAGES_MAX}")
    origins: dict[Origin, int] = {}
    rows = []
    size = 0
    for place, message in enumerate(messages):
        network = registry.networks.get(message.network_id)
        alias_key = message.alias_key or (network.alias_key if network else "serial")
        origin = Origin(message.network_id, alias_key, message.alias, "", "envelope", "rest")
        try:
            check_origin(origin)
        except LimitError as error:
            raise LimitError(f"messages[{place}].{error.detail}") from None
        for name in ("network_id", "alias_key", "alias"):
            if "\0" in getattr(origin, name):
                raise LimitError(f"messages[{place}].{name} holds the character U+0000, which no database text can")
        payload = msgspec.json.encode(Envelope(message.data, message.id, message.time))
        if len(payload) > PAYLOAD_BYTES_MAX:
            raise LimitError(f"messages[{place}] has {len(payload):,} bytes; the limit is {PAYLOAD_BYTES_MAX:,}")
        size += len(payload)
        origins.setdefault(origin, len(origins))
        rows.append((origin, payload))
    if size > BATCH_BYTES_MAX - _BATCH_ROOM:
        raise LimitError(f"{size:,} bytes in one request; the limit is {BATCH_BYTES_MAX - _BATCH_ROOM:,}")
    return origins, rows


def _result(registry: Registry, record: str, origin: Origin, payload: bytes) -> IngestResult:
    known = registry.device(origin.network_id, origin.alias_key, origin.alias) is not None
    try:
        decoded = registry.decoder(origin.network_id, origin.codec)([payload])
    except KeyError:
        return IngestResult(record, known, f"no network named {origin.network_id}")
    if decoded.errors:
        return IngestResult(record, known, decoded.errors[0][1].detail)
    if decoded.alias[0] is not None:
        known = registry.device(origin.network_id, origin.alias_key, decoded.alias[0]) is not None
    return IngestResult(record, known)
