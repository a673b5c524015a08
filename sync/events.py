"""The events among the records of a block: a pure function of records and anchors, the same code at both ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from protocols.batch import RecordBatch
from protocols.errors import DecodeError
from protocols.events import EVENT_CODECS, RESPONSE, Presence, Response, read_presence, read_response
from protocols.messages import Anchor, ClockState, Origin
from protocols.shipment import Run
from protocols.times import corrected


class Event(msgspec.Struct, frozen=True):
    """What a record said."""

    epoch: int
    seq: int
    origin: Origin
    time: int
    """When it was received, Unix milliseconds, as true as is known."""
    payload: bytes
    said: Response | Presence


def events_of(run: Run, batches: Sequence[RecordBatch], anchors: Mapping[int, Sequence[Anchor]]) -> Iterator[Event]:
    """In order. `run` numbers the records of all batches; what is no event, or cannot be read, is passed over."""
    seq = run.first_seq
    for batch in batches:
        wanted = {place for place, origin in enumerate(batch.origins) if origin.codec in EVENT_CODECS}
        if wanted:
            for row, place in enumerate(batch.origin_index):
                if place in wanted:
                    event = _event(run.epoch, seq + row, batch, row, anchors)
                    if event is not None:
                        yield event
        seq += len(batch)


def _event(epoch: int, seq: int, batch: RecordBatch, row: int, anchors: Mapping[int, Sequence[Anchor]]) -> Event | None:
    origin, payload = batch.origins[batch.origin_index[row]], batch.payloads[row]
    try:
        said = read_response(origin.topic, payload) if origin.codec == RESPONSE else read_presence(payload)
    except DecodeError:
        return None
    time = batch.base_ms + batch.received_delta_ms[row]
    here = anchors.get(batch.clock.boot)
    if batch.clock.state is not ClockState.SYNCHRONIZED and here:
        time = corrected([time], batch.clock, here)[0][0]
    return Event(epoch, seq, origin, time, payload, said)
