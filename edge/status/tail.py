"""The live tail: what is resolved, unknown or rejected, as it comes, for a few who look on."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

import msgspec

from edge.listeners.refusals import Refused
from edge.status.rejects import RefusedPacket, Rejected, payload_of, rejected
from protocols.shipment import MessageBatch, Target

CLIENTS_MAX: Final = 16
"""Those who look on at the same time: each costs time for every message."""

EVENTS_MAX: Final = 500
"""That wait for one client; beyond it, the oldest are missed, and the client is told. A screen shows fifty."""

DATA_BYTES_MAX: Final = 4096
"""Of one message's attributes; larger ones are left out, with their size. Bounds a client's queue at 2 MB."""

_encode: Final = msgspec.json.Encoder().encode


class Message(msgspec.Struct, frozen=True, tag_field="kind", tag="message"):
    """A message, resolved; `device_id` 0: the registry does not know the device."""

    id: str
    network: str
    alias_key: str
    alias: str
    device_id: int
    received_time: int
    event_time: int
    listener: str
    data: msgspec.Raw | None
    """The attributes; None where they are too large to be shown."""
    size: int
    """Of the attributes as JSON, bytes."""


class RejectedEvent(Rejected, frozen=True, tag_field="kind", tag="rejected"):
    """A record that does not decode."""


class RefusedEvent(RefusedPacket, frozen=True, tag_field="kind", tag="refused"):
    """A packet or connection that a listener did not let in."""


def rejected_event(one: Rejected) -> RejectedEvent:
    return RejectedEvent(**{name: getattr(one, name) for name in one.__struct_fields__})


def refused_event(one: RefusedPacket) -> RefusedEvent:
    return RefusedEvent(**{name: getattr(one, name) for name in one.__struct_fields__})


class TailFilter(msgspec.Struct, frozen=True):
    device: str = ""
    """An alias, `key:alias`, `network:key:alias` or a device's number; empty: all."""
    listener: str = ""
    """The name of a listener; empty: all."""
    rejected_only: bool = False

    def takes_from(self, listener: str) -> bool:
        return self.listener in ("", listener)

    def takes(self, network: str, alias_key: str, alias: str, device_id: int = 0) -> bool:
        if not self.device:
            return True
        if device_id and self.device == str(device_id):
            return True
        return self.device in (alias, f"{alias_key}:{alias}", f"{network}:{alias_key}:{alias}")

    def takes_login(self, network: str, user_name: str) -> bool:
        """One that was refused: by the name that it gave."""
        alias_key, _, alias = user_name.rpartition(":")
        return self.takes(network, alias_key, alias)


class TailClient:
    """What waits for one who looks on."""

    def __init__(self, wanted: TailFilter) -> None:
        self._wanted = wanted
        self._events: deque[bytes] = deque()
        self._missed = 0
        self._arrived = asyncio.Event()
        self._closed = False

    async def next(self) -> tuple[list[bytes], int]:
        """Events as JSON, and how many were missed before them. Waits while there is neither; nothing once closed."""
        while not (self._events or self._missed or self._closed):
            self._arrived.clear()
            await self._arrived.wait()
        events, missed = list(self._events), self._missed
        self._events.clear()
        self._missed = 0
        return events, missed

    @property
    def is_closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        self._closed = True
        self._arrived.set()

    def offer(self, batch: MessageBatch, listeners: Sequence[str]) -> None:
        """Builds no more events than are kept, however large the batch. `listeners`: of each record, by its place."""
        wanted = self._wanted
        if not wanted.rejected_only:
            self._offer_messages(batch, listeners, _rows(batch, listeners, wanted))
        rejects = [
            one
            for one in batch.rejects
            if wanted.takes_from(listeners[one.record]) and wanted.takes(one.network_id, one.alias_key, one.alias)
        ]
        self._miss(len(rejects) - EVENTS_MAX)
        for one in rejects[-EVENTS_MAX:]:
            self._put(_encode(rejected_event(rejected(one, listeners))))

    def offer_refused(self, listener: str, network: str, refused: Refused) -> None:
        if self._wanted.takes_from(listener) and self._wanted.takes_login(network, refused.user_name):
            self._put(
                _encode(
                    RefusedEvent(
                        refused.time_ms,
                        refused.code,
                        refused.detail,
                        listener,
                        refused.peer,
                        refused.user_name,
                        payload_of(refused.data),
                    )
                )
            )

    def _offer_messages(self, batch: MessageBatch, listeners: Sequence[str], rows: Sequence[int]) -> None:
        self._miss(len(rows) - EVENTS_MAX)
        for row in rows[-EVENTS_MAX:]:
            target = batch.targets[batch.target_index[row]]
            data = batch.data[row]
            self._put(
                _encode(
                    Message(
                        id=batch.ids[16 * row : 16 * row + 16].hex(),
                        network=target.network_id,
                        alias_key=target.alias_key,
                        alias=target.alias,
                        device_id=target.device_id,
                        received_time=batch.received_time[row],
                        event_time=batch.event_time[row],
                        listener=listeners[batch.record[row]],
                        data=msgspec.Raw(data) if len(data) <= DATA_BYTES_MAX else None,
                        size=len(data),
                    )
                )
            )

    def _miss(self, count: int) -> None:
        if count > 0:
            self._missed += count
            self._arrived.set()

    def _put(self, event: bytes) -> None:
        if len(self._events) >= EVENTS_MAX:
            self._events.popleft()
            self._missed += 1
        self._events.append(event)
        self._arrived.set()


def _rows(batch: MessageBatch, listeners: Sequence[str], wanted: TailFilter) -> Sequence[int]:
    rows: Sequence[int] = range(len(batch))
    if wanted.device:
        places = {place for place, target in enumerate(batch.targets) if _takes(wanted, target)}
        rows = [row for row, place in enumerate(batch.target_index) if place in places] if places else ()
    if wanted.listener:
        rows = [row for row in rows if listeners[batch.record[row]] == wanted.listener]
    return rows


def _takes(wanted: TailFilter, target: Target) -> bool:
    return wanted.takes(target.network_id, target.alias_key, target.alias, target.device_id)


class Tail:
    """All who look on. While there is nobody, a batch costs nothing."""

    def __init__(self) -> None:
        self._clients: list[TailClient] = []
        self._closed = False

    def open(self, wanted: TailFilter) -> TailClient | None:
        """None if there are as many as allowed."""
        if self._closed or len(self._clients) >= CLIENTS_MAX:
            return None
        client = TailClient(wanted)
        self._clients.append(client)
        return client

    @property
    def has_clients(self) -> bool:
        return bool(self._clients)

    def leave(self, client: TailClient) -> None:
        """Passed over for one who has left."""
        if client in self._clients:
            self._clients.remove(client)

    def offer(self, batch: MessageBatch, listeners: Sequence[str]) -> None:
        for client in self._clients:
            client.offer(batch, listeners)

    def offer_refused(self, listener: str, network: str, refused: Refused) -> None:
        for client in self._clients:
            client.offer_refused(listener, network, refused)

    def close(self) -> None:
        """Ends all; nobody is let in any more."""
        self._closed = True
        for client in self._clients:
            client.close()
