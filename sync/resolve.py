"""decode and resolve: a pure function of records, registry and anchors, the same code at both ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from protocols.batch import RecordBatch
from protocols.codecs import Decoded, Decoder, all_rejected
from protocols.errors import DecodeError
from protocols.events import EVENT_CODECS, event_decoder
from protocols.ids import KeySpace, record_message_id
from protocols.messages import Anchor, Clock, ClockState, Origin
from protocols.metadata import with_metadata
from protocols.shipment import (
    CLOCK_CORRECTED,
    CLOCK_UNSURE,
    KEYED,
    TIME_REPLACED,
    MessageBatch,
    Reject,
    Run,
    Target,
)
from protocols.times import DEVICE_TIME_AHEAD_MAX_MS, corrected, event_times
from sync.registry import Registry

NO_ANCHORS: Final[Mapping[int, Sequence[Anchor]]] = {}


class Resolver:
    """Collects blocks of one project into one message batch.

    What it remembers between records (targets, key spaces) is only valid for one revision of the registry: make a new
    one for each message batch, and do not wait for anything between its calls.
    """

    def __init__(self, registry: Registry, anchors: Mapping[int, Sequence[Anchor]] = NO_ANCHORS) -> None:
        """`anchors`: by boot, those of a boot by rising `boot_ms`; only asked for batches whose clock was not
        synchronized."""
        self._registry = registry
        self._anchors = anchors
        self._targets: dict[tuple[str, str, str], int] = {}
        self._key_spaces: dict[int, KeySpace] = {}
        self._records = 0
        self._out = MessageBatch([], [], b"", [], [], [], [], [], [], [], [], [], [])
        self._ids: list[bytes] = []

    def add(self, run: Run, batches: Sequence[RecordBatch]) -> None:
        """All records of one block, numbered by `run`."""
        self._out.runs.append(run)
        seq = run.first_seq
        for batch in batches:
            self._add_batch(run.epoch, seq, batch)
            seq += len(batch)
            self._records += len(batch)

    def finish(self) -> MessageBatch:
        out = self._out
        if out.time_error_ms:
            _fill_up(out.time_error_ms, len(out))
        return msgspec.structs.replace(out, ids=b"".join(self._ids))

    def _add_batch(self, epoch: int, first_seq: int, batch: RecordBatch) -> None:
        decoders = [self._decoder(origin) for origin in batch.origins]
        decoder = decoders[0]
        if all(other is decoder for other in decoders):
            self._add_rows(epoch, first_seq, batch, range(len(batch)), decoder)
            return
        rows_of: dict[Decoder, list[int]] = {}
        for row, origin in enumerate(batch.origin_index):
            rows_of.setdefault(decoders[origin], []).append(row)
        for decoder, rows in rows_of.items():
            self._add_rows(epoch, first_seq, batch, rows, decoder)

    def _add_rows(self, epoch: int, first_seq: int, batch: RecordBatch, rows: Sequence[int], decoder: Decoder) -> None:
        """Rows that share a decoder, column by column: what is done once for all of them is not done for each."""
        out, payloads = self._out, batch.payloads
        decoded = decoder(payloads if len(rows) == len(payloads) else [payloads[row] for row in rows])
        for place, error in decoded.errors:
            self._reject(batch, rows[place], error)
        in_batch = decoded.place if len(rows) == len(payloads) else [rows[place] for place in decoded.place]
        targets = self._targets_of(batch.origins, [batch.origin_index[row] for row in in_batch], decoded.alias)
        received = [batch.base_ms + batch.received_delta_ms[row] for row in in_batch]
        device = decoded.time
        if decoded.relative:  # to when they were received, which is dated first
            apart = {row: device[row] for row in decoded.relative}
            device = [None if row in apart else time for row, time in enumerate(device)]
        if batch.clock.state is ClockState.SYNCHRONIZED:
            filed, replaced = event_times(device, received)
            of_clock = 0
        else:
            filed, replaced, of_clock = self._date(batch.clock, received, device)
        if decoded.relative:
            replaced += _file_apart(device, filed, apart)
        keyed = decoded.key.count(None) < len(decoded.key)
        if keyed:
            self._add_keyed_ids(epoch, first_seq, in_batch, targets, decoded)
        else:
            self._ids.extend(
                [record_message_id(epoch, first_seq + row, i) for row, i in zip(in_batch, decoded.index, strict=True)]
            )
        flags = (
            [of_clock if key is None else of_clock | KEYED for key in decoded.key]
            if keyed
            else [of_clock] * len(in_batch)
        )
        for place in replaced:
            flags[place] |= TIME_REPLACED
        known = [bool(target.device_id) for target in out.targets]
        unknown_kept = [b""] * len(in_batch)
        if not all(known):
            unknown_kept = [
                b"" if known[target] else payloads[row] for target, row in zip(targets, in_batch, strict=True)
            ]
        out.record.extend([self._records + row for row in in_batch])
        out.message_index.extend(decoded.index)
        out.target_index.extend(targets)
        out.flags.extend(flags)
        out.time.extend(device)
        out.received_time.extend(received)
        out.event_time.extend(filed)
        data = decoded.data
        if batch.metadata:
            data = [with_metadata(each, batch.metadata[row]) for each, row in zip(data, in_batch, strict=True)]
        out.data.extend(data)
        out.payloads.extend(unknown_kept)

    def _date(
        self, clock: Clock, received: Sequence[int], device: Sequence[int | None]
    ) -> tuple[list[int], list[int], int]:
        """As event_times, for what a clock stamped that was not synchronized; and the flag that says so. Called before
        the rows are there: it adds the bounds of their errors."""
        anchors = self._anchors.get(clock.boot)
        if not anchors:
            return *event_times(device, received), CLOCK_UNSURE
        true_ms, error_ms = corrected(received, clock, anchors)
        filed, replaced = event_times(device, true_ms)
        by_device = {place for place, given in enumerate(device) if given is not None}.difference(replaced)
        bounds = self._out.time_error_ms
        _fill_up(bounds, len(self._out))
        bounds.extend([None if place in by_device else error for place, error in enumerate(error_ms)])
        return filed, replaced, CLOCK_CORRECTED

    def _add_keyed_ids(
        self, epoch: int, first_seq: int, in_batch: list[int], targets: list[int], decoded: Decoded
    ) -> None:
        """Of messages of which some have a message key."""
        ids, spaces, all_targets = self._ids, self._key_spaces, self._out.targets
        for row, index, target, key in zip(in_batch, decoded.index, targets, decoded.key, strict=True):
            if key is None:
                ids.append(record_message_id(epoch, first_seq + row, index))
                continue
            space = spaces.get(target)
            if space is None:
                space = spaces[target] = _key_space(all_targets[target])
            ids.append(space.message_id(key, index))

    def _targets_of(self, origins: Sequence[Origin], origin_of: list[int], aliases: list[str | None]) -> list[int]:
        """The target of each message: by its origin, but for payloads that name their device."""
        of_origin = [self._target(origin, origin.alias) for origin in origins]
        if aliases.count(None) == len(aliases):
            return [of_origin[place] for place in origin_of]
        return [
            of_origin[place] if alias is None else self._target(origins[place], alias)
            for place, alias in zip(origin_of, aliases, strict=True)
        ]

    def _decoder(self, origin: Origin) -> Decoder:
        if origin.codec in EVENT_CODECS:
            return event_decoder(origin.codec, origin.topic)
        try:
            return self._registry.decoder(origin.network_id, origin.codec)
        except KeyError as error:
            return all_rejected(DecodeError(f"no network named {error}"))

    def _target(self, origin: Origin, alias: str) -> int:
        name = (origin.network_id, origin.alias_key, alias)
        found = self._targets.get(name)
        if found is None:
            found = self._targets[name] = len(self._out.targets)
            self._out.targets.append(self._registry.target(*name))
        return found

    def _reject(self, batch: RecordBatch, row: int, error: DecodeError) -> None:
        origin = batch.origins[batch.origin_index[row]]
        self._out.rejects.append(
            Reject(
                self._records + row,
                error.code,
                error.detail,
                origin.network_id,
                origin.alias_key,
                origin.alias,
                origin.topic,
                batch.base_ms + batch.received_delta_ms[row],
                batch.payloads[row],
                origin.codec,
                batch.clock,
                metadata=batch.metadata[row] if batch.metadata else b"",
            )
        )


def _file_apart(device: list[int | None], filed: list[int], apart: Mapping[int, int | None]) -> list[int]:
    """Dates the rows whose time is milliseconds after they were received, which is what `filed` has of them. Gives
    those that lie too far ahead: they stay filed under when they were received."""
    replaced = []
    for row, later_ms in apart.items():
        if later_ms is not None:
            device[row] = filed[row] + later_ms
            if later_ms > DEVICE_TIME_AHEAD_MAX_MS:
                replaced.append(row)
            else:
                filed[row] += later_ms
    return replaced


def _fill_up(time_error_ms: list[int | None], rows: int) -> None:
    """Rows whose time needed no correction have no bound of its error."""
    time_error_ms.extend([None] * (rows - len(time_error_ms)))


def _key_space(target: Target) -> KeySpace:
    return KeySpace(target.project_id, target.network_id, target.alias_key, target.alias)
