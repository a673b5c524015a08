"""What the cloud's topics carry: blocks of several sources in one NATS message, and resolved messages as columns.

A shipment (topic `default-processor`), MessagePack array: [version = 1, [[source id, block], …]].

A message batch (topics from the message processor on): 1 byte version = 1, then a zstd frame of the MessagePack array
of the fields of MessageBatch in order.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
import zstandard

from protocols.errors import UNREADABLE, MalformedError, VersionError
from protocols.ids import record_message_id
from protocols.messages import Clock, DeviceDataEventMsg, Route

SHIPMENT_VERSION: Final = 1
MESSAGES_VERSION: Final = 1
MESSAGES_RAW_BYTES_MAX: Final = 64 * 1024 * 1024
"""A message batch before compression: a bound for what one frame can make a reader allocate."""


class Consignment(msgspec.Struct, frozen=True, array_like=True):
    """One block and whose it is."""

    source_id: int
    block: bytes


class Shipment(msgspec.Struct, frozen=True, array_like=True):
    version: int
    consignments: list[Consignment]


class Run(msgspec.Struct, frozen=True, array_like=True):
    """Consecutive records of one source: what hops remember as done."""

    source_id: int
    epoch: int
    first_seq: int
    count: int


class Target(msgspec.Struct, frozen=True, array_like=True):
    """The device that messages are from, as one revision of the registry knew it. `device_id` 0: unknown."""

    project_id: str
    network_id: str
    alias_key: str
    alias: str
    device_id: int
    blueprint_id: str
    system_id: str
    route: Route
    revision: int


class Reject(msgspec.Struct, frozen=True, array_like=True):
    """A record that gave no message. `record`: its place among the records of all runs, from 0."""

    record: int
    code: str
    detail: str
    network_id: str
    alias_key: str
    alias: str
    topic: str
    received_time: int
    payload: bytes
    codec: str = ""
    """The listener's hint."""
    clock: Clock | None = None
    """That stamped it."""
    late: bool = False
    """It came by the lane `backfill`."""
    metadata: bytes = b""
    """What its protocol said beside the payload (metadata.py)."""


class Misfit(msgspec.Struct, frozen=True, array_like=True):
    """A value that did not fit its blueprint, and was left out of its message."""

    attribute: str
    """Its path; empty: several, that are only counted."""
    code: str
    """`type`, `range`, `enumeration`; `more`: several."""
    reason: str
    value: str
    """JSON, or the beginning of it."""
    count: int = 1


class Forward(msgspec.Struct, frozen=True, array_like=True):
    """What a message becomes at a device that its own one is related to."""

    target: int
    """Its place among the batch's targets."""
    key: str
    """The relationship's."""
    data: bytes
    """A JSON object: the attributes."""
    current_only: bytes = b""
    misfits: tuple[Misfit, ...] = ()


KEYED: Final = 1
"""Flag: the id derives from a message key; another record may carry the same message."""
TIME_REPLACED: Final = 2
"""Flag: the device's time was implausible; event_time is the received time."""
HISTORY_ONLY: Final = 4
"""Flag: never becomes current."""
LATE: Final = 8
"""Flag: it came by the lane `backfill`, after newer ones."""
CLOCK_CORRECTED: Final = 16
"""Flag: the gateway's clock was not synchronized; *received* was corrected by an anchor of its boot."""
CLOCK_UNSURE: Final = 32
"""Flag: the gateway's clock was not synchronized, and nothing is known of its boot: *received* stands as it came."""


DERIVED: Final = 64
"""Flag: another device's message, forwarded by a relationship."""


class MessageBatch(msgspec.Struct, frozen=True, array_like=True):
    """Messages as columns; row i is element i of each.

    `runs` name every record that this batch accounts for, also those that gave no row. `record[i]` is the place of row
    i's record among the records of all runs; `message_index[i]` its number within the record.
    """

    runs: list[Run]
    targets: list[Target]
    ids: bytes
    """16 bytes a row."""
    record: list[int]
    message_index: list[int]
    target_index: list[int]
    flags: list[int]
    time: list[int | None]
    received_time: list[int]
    event_time: list[int]
    data: list[bytes]
    """A JSON object a row: the attributes."""
    payloads: list[bytes]
    """The record's payload for rows whose device is unknown, so that the inbox keeps the truth; else empty."""
    rejects: list[Reject]
    time_error_ms: list[int | None] = []
    """event_time is true within ± so much; None: no bound is known, or the time is the device's own. Empty where no row
    has one."""
    carriers: list[bytes] = []
    """The id that row i would have without a message key, 16 bytes: of messages that travel under other numbers than
    their record's. Empty: the runs say it."""
    current_only: list[bytes] = []
    """Attributes that history does not keep, a JSON object a row, which current takes before those of `data`; b"" for a
    row without any. Empty where no row has any."""
    misfits: list[tuple[Misfit, ...]] = []
    """What was left out of each row. Empty where nothing was."""
    forwards: list[tuple[Forward, ...]] = []
    """What each row becomes at other devices, once it is stored. Empty where none does."""

    def __len__(self) -> int:
        return len(self.data)

    @property
    def records(self) -> int:
        return sum(run.count for run in self.runs)

    def current_of(self, row: int) -> bytes:
        """All that the row has for current, a JSON object."""
        apart = self.current_only[row] if self.current_only else b""
        if not apart:
            return self.data[row]
        return msgspec.json.encode(_raw_object(self.data[row]) | _raw_object(apart))

    def messages(self) -> Iterator[DeviceDataEventMsg]:
        """One object a row, for tails and tests, not for hot paths."""
        for i, target_index in enumerate(self.target_index):
            target = self.targets[target_index]
            yield DeviceDataEventMsg(
                id=str(uuid.UUID(bytes=self.ids[16 * i : 16 * i + 16])),
                network_id=target.network_id,
                alias_key=target.alias_key,
                alias=target.alias,
                time=self.time[i],
                received_time=self.received_time[i],
                history_only=bool(self.flags[i] & HISTORY_ONLY),
                data=msgspec.json.decode(self.data[i]),
                device_id=target.device_id,
                blueprint_id=target.blueprint_id,
                system_id=target.system_id,
                project_id=target.project_id,
                event_time=self.event_time[i],
                route=target.route,
                revision=target.revision,
            )


def record_places(runs: Sequence[Run]) -> list[tuple[Run, int]]:
    """The run and the seq of each record, by its place among the records of all runs."""
    return [(run, seq) for run in runs for seq in range(run.first_seq, run.first_seq + run.count)]


def carriers_of(batch: MessageBatch) -> list[bytes]:
    """For each row the id that it would have without a message key, 16 bytes."""
    if batch.carriers:
        return batch.carriers
    places = record_places(batch.runs)
    found = [(places[place], index) for place, index in zip(batch.record, batch.message_index, strict=True)]
    return [record_message_id(run.epoch, seq, index) for (run, seq), index in found]


def concat(batches: Sequence[MessageBatch]) -> MessageBatch:
    """One batch that accounts for all of them, in order."""
    if len(batches) == 1:
        return batches[0]
    out = MessageBatch([], [], b"".join(batch.ids for batch in batches), [], [], [], [], [], [], [], [], [], [])
    records = 0
    bounded = any(batch.time_error_ms for batch in batches)
    carried = any(batch.carriers for batch in batches)
    apart = any(batch.current_only for batch in batches)
    unfit = any(batch.misfits for batch in batches)
    forwarding = any(batch.forwards for batch in batches)
    for batch in batches:
        targets = len(out.targets)
        out.runs.extend(batch.runs)
        out.targets.extend(batch.targets)
        out.record.extend([records + place for place in batch.record])
        out.message_index.extend(batch.message_index)
        out.target_index.extend([targets + place for place in batch.target_index])
        out.flags.extend(batch.flags)
        out.time.extend(batch.time)
        out.received_time.extend(batch.received_time)
        out.event_time.extend(batch.event_time)
        out.data.extend(batch.data)
        out.payloads.extend(batch.payloads)
        if bounded:
            out.time_error_ms.extend(batch.time_error_ms or [None] * len(batch))
        if carried:
            out.carriers.extend(carriers_of(batch))
        if apart:
            out.current_only.extend(batch.current_only or [b""] * len(batch))
        if unfit:
            out.misfits.extend(batch.misfits or [()] * len(batch))
        if forwarding:
            out.forwards.extend(
                tuple(msgspec.structs.replace(forward, target=targets + forward.target) for forward in forwards)
                for forwards in batch.forwards or [()] * len(batch)
            )
        out.rejects.extend(msgspec.structs.replace(reject, record=records + reject.record) for reject in batch.rejects)
        records += batch.records
    return out


def restrict(batch: MessageBatch, parts: Sequence[Sequence[Run]]) -> MessageBatch:
    """Only the records in `parts`, which holds, for each run of the batch, those pieces of it that stay."""
    new_place: dict[int, int] = {}
    first = 0
    for run, kept in zip(batch.runs, parts, strict=True):
        for part in kept:
            for seq in range(part.first_seq, part.first_seq + part.count):
                new_place[first + seq - run.first_seq] = len(new_place)
        first += run.count
    rows = [i for i, place in enumerate(batch.record) if place in new_place]
    return pick(
        msgspec.structs.replace(
            batch,
            runs=[part for kept in parts for part in kept],
            record=[new_place.get(place, -1) for place in batch.record],
            rejects=[
                msgspec.structs.replace(reject, record=new_place[reject.record])
                for reject in batch.rejects
                if reject.record in new_place
            ],
        ),
        rows,
    )


def pick(batch: MessageBatch, rows: Sequence[int]) -> MessageBatch:
    """Only those rows; it still accounts for all of the batch's records."""
    ids = batch.ids
    return MessageBatch(
        batch.runs,
        batch.targets,
        b"".join([ids[16 * i : 16 * i + 16] for i in rows]),
        [batch.record[i] for i in rows],
        [batch.message_index[i] for i in rows],
        [batch.target_index[i] for i in rows],
        [batch.flags[i] for i in rows],
        [batch.time[i] for i in rows],
        [batch.received_time[i] for i in rows],
        [batch.event_time[i] for i in rows],
        [batch.data[i] for i in rows],
        [batch.payloads[i] for i in rows],
        batch.rejects,
        [batch.time_error_ms[i] for i in rows] if batch.time_error_ms else [],
        [batch.carriers[i] for i in rows] if batch.carriers else [],
        [batch.current_only[i] for i in rows] if batch.current_only else [],
        [batch.misfits[i] for i in rows] if batch.misfits else [],
        [batch.forwards[i] for i in rows] if batch.forwards else [],
    )


_raw_object: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_shipment_decoder: Final = msgspec.msgpack.Decoder(Shipment)
_messages_decoder: Final = msgspec.msgpack.Decoder(MessageBatch)
_encoder: Final = msgspec.msgpack.Encoder()
_compressor: Final = zstandard.ZstdCompressor(level=1, write_content_size=True)
_decompressor: Final = zstandard.ZstdDecompressor()


def encode_shipment(consignments: Sequence[Consignment]) -> bytes:
    return _encoder.encode(Shipment(SHIPMENT_VERSION, list(consignments)))


def decode_shipment(data: bytes) -> list[Consignment]:
    try:
        shipment = _shipment_decoder.decode(data)
    except UNREADABLE as error:
        raise MalformedError(f"shipment: {error}") from None
    if shipment.version != SHIPMENT_VERSION:
        raise VersionError(f"shipment version {shipment.version}; this side reads {SHIPMENT_VERSION}")
    return shipment.consignments


def encode_messages(batch: MessageBatch) -> bytes:
    return bytes((MESSAGES_VERSION,)) + _compressor.compress(_encoder.encode(batch))


def decode_messages(data: bytes) -> MessageBatch:
    if not data or data[0] != MESSAGES_VERSION:
        raise VersionError(f"message batch version {data[:1]!r}; this side reads {MESSAGES_VERSION}")
    try:
        if zstandard.get_frame_parameters(data[1:19]).content_size > MESSAGES_RAW_BYTES_MAX:
            raise MalformedError(f"message batch: more than {MESSAGES_RAW_BYTES_MAX:,} bytes before compression")
        return _messages_decoder.decode(_decompressor.decompress(memoryview(data)[1:]))
    except (*UNREADABLE, zstandard.ZstdError) as error:
        raise MalformedError(f"message batch: {error}") from None
