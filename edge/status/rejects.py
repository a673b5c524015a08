"""What was turned away, last: records that do not decode, and packets and connections that a listener refused."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from edge.listeners.refusals import Refusals
from protocols.shipment import MessageBatch, Reject

KEPT_MAX: Final = 100
"""Records that can be looked at; the counts hold all, and the cloud keeps each with its bytes."""

PAYLOAD_BYTES_MAX: Final = 1024
"""Kept of a payload: enough to see what is wrong with it."""

_utf8: Final = codecs.getincrementaldecoder("utf-8")

PER_BATCH_MAX: Final = 20
"""Looked at of one batch: a device that sends rubbish at full rate must not fill the gateway's time."""


class Payload(msgspec.Struct, frozen=True):
    """Bytes as they came, for people."""

    size: int
    """Of the whole, in bytes."""
    hex: str
    """Its start."""
    text: str | None
    """The same as text, if it is UTF-8."""


class Rejected(msgspec.Struct, frozen=True):
    """A record that is in the log, but gave no message."""

    received_time: int
    code: str
    detail: str
    network: str
    alias_key: str
    alias: str
    topic: str
    listener: str
    payload: Payload


class RefusedPacket(msgspec.Struct, frozen=True):
    """What a listener did not let in."""

    time_ms: int
    code: str
    detail: str
    listener: str
    peer: str
    user_name: str
    payload: Payload


class Rejections(msgspec.Struct, frozen=True):
    rejected: list[Rejected]
    """Newest first."""
    refused: list[RefusedPacket]
    """Newest first, of all listeners."""
    rejected_counts: dict[str, int]
    """Records, by code, since the start."""
    refused_counts: dict[str, int]
    """Packets and connections, by code, since the start."""


class Rejects:
    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._last: deque[Rejected] = deque(maxlen=KEPT_MAX)

    def add(self, batch: MessageBatch, listeners: Sequence[str]) -> None:
        """`listeners`: of each record, by its place."""
        for reject in batch.rejects:
            self.counts[reject.code] = self.counts.get(reject.code, 0) + 1
        self._last.extend(rejected(reject, listeners) for reject in batch.rejects[-PER_BATCH_MAX:])

    def all(self, refusals: Iterable[Refusals]) -> Rejections:
        packets = [packet for of_listener in refusals for packet in refused_packets(of_listener)]
        packets.sort(key=lambda packet: packet.time_ms, reverse=True)
        return Rejections(list(reversed(self._last)), packets, self.counts, counts(refusals))


def counts(refusals: Iterable[Refusals]) -> dict[str, int]:
    """Of all listeners, by code."""
    total: dict[str, int] = {}
    for of_listener in refusals:
        for code, count in of_listener.counts.items():
            total[code] = total.get(code, 0) + count
    return total


def rejected(reject: Reject, listeners: Sequence[str]) -> Rejected:
    return Rejected(
        reject.received_time,
        reject.code,
        reject.detail,
        reject.network_id,
        reject.alias_key,
        reject.alias,
        reject.topic,
        listeners[reject.record],
        payload_of(reject.payload),
    )


def refused_packets(refusals: Refusals) -> list[RefusedPacket]:
    """Oldest first."""
    return [
        RefusedPacket(
            one.time_ms, one.code, one.detail, refusals.listener, one.peer, one.user_name, payload_of(one.data)
        )
        for one in refusals.last
    ]


def payload_of(data: bytes) -> Payload:
    start = data[:PAYLOAD_BYTES_MAX]
    try:
        # The cut may go through a character, which is not the payload's fault.
        text = _utf8().decode(start, final=len(start) == len(data))
    except UnicodeDecodeError:
        text = None
    return Payload(len(data), start.hex(), text)
