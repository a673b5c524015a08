"""The live stream: messages of devices as they are written, as server-sent events.

It shows what is going on and holds nobody up: a client that reads too slowly is told how many messages it missed.
Whoever needs every message reads history.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import Annotated, Final

import msgspec
from fastapi import Depends, Query, Request
from fastapi.responses import StreamingResponse

from cloud.api.context import ApiContext, Context
from cloud.api.problems import Problem
from cloud.api.routing import needs, resource
from cloud.api.tenancy import InProject, device_at
from protocols.shipment import MessageBatch
from sync.bus.contract import BusError
from tidegate.logs import get_logger

router = resource("/stream", "data")

EVENTS_MAX: Final = 2000
"""Messages that wait for one client: a second of a busy project, which a healthy connection takes in a moment."""
EVENT_BYTES_MAX: Final = 4 * 1024 * 1024
"""Their bytes; with STREAMS_MAX, what all clients can cost together."""
STREAMS_MAX: Final = 100
"""Of one process."""
KEEP_ALIVE_S: Final = 15.0
"""Proxies cut connections that are silent for a minute or so."""
STREAM_S_MAX: Final = 3600.0
"""Then the client connects again, and is looked at again: it may not be allowed to any more."""
DEVICES_MAX: Final = 100
"""Devices that one stream is narrowed to."""

_ONE_LINE: Final = bytes.maketrans(b"\r\n", b"  ")
"""Line ends in JSON text are white space; in an event they would end the field."""

log = get_logger("cloud.api.stream")


class Wanted(msgspec.Struct, frozen=True):
    """What a client gets to see."""

    project_id: str
    device_ids: frozenset[int] | None = None
    """None: of all devices."""
    system_ids: frozenset[str] | None = None
    """None: of all systems."""


class Mailbox:
    """What waits for one client: bounded, newest messages are the ones it misses."""

    def __init__(self, events_max: int = EVENTS_MAX, bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._events: deque[bytes] = deque()
        self._room = (events_max, bytes_max)
        self._bytes = 0
        self._missed = 0
        self._filled = asyncio.Event()

    def put(self, events: Iterable[bytes]) -> None:
        events_max, bytes_max = self._room
        for event in events:
            if len(self._events) >= events_max or self._bytes + len(event) > bytes_max:
                self._missed += 1
            else:
                self._events.append(event)
                self._bytes += len(event)
        self._filled.set()

    async def take(self, timeout_s: float) -> bytes:
        """All that waits, with a word about what was missed; empty if there was nothing for `timeout_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._filled.wait()
        self._filled.clear()
        taken = b"".join(self._events)
        if self._missed:
            taken += b'event: missed\ndata: {"missed":%d}\n\n' % self._missed
        self._events.clear()
        self._bytes = self._missed = 0
        return taken


async def _devices(
    request: Request,
    context: Context,
    tenant: InProject,
    device: Annotated[
        list[str] | None, Query(max_length=DEVICES_MAX, description="Only these: ids or `network:key:alias`.")
    ] = None,
) -> frozenset[int] | None:
    if not device:
        return None
    found = [await device_at(request, context, tenant.principal, ref, tenant.project_id) for ref in device]
    return frozenset(at.id for at in found)


@router.get(
    "",
    openapi_extra=needs("read", anywhere=True),
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Events without a type are messages; `missed` tells how many messages were left out.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        }
    },
)
async def stream(
    context: Context, tenant: InProject, device_ids: Annotated[frozenset[int] | None, Depends(_devices)]
) -> StreamingResponse:
    """Messages from now on, as server-sent events."""
    if context.streams >= STREAMS_MAX:
        raise Problem(
            503, "too-many-streams", "Too many streams", "too many clients read the live stream", limit=STREAMS_MAX
        )
    systems = tenant.systems("read")
    wanted = Wanted(tenant.project_id, device_ids, None if systems is None else frozenset(systems))
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    # fastapi's own server-sent events cost a validated object and an await a message; these go out by the batch.
    events = _events(context, wanted)
    return StreamingResponse(events, headers=headers, media_type="text/event-stream")


async def _events(context: ApiContext, wanted: Wanted) -> AsyncIterator[bytes]:
    mailbox = Mailbox()
    context.streams += 1
    pump = asyncio.create_task(_pump(context, wanted, mailbox))
    try:
        ends_s = asyncio.get_running_loop().time() + STREAM_S_MAX
        yield b": live from here\n\n"
        while not pump.done() and asyncio.get_running_loop().time() < ends_s:
            yield await mailbox.take(KEEP_ALIVE_S) or b": nothing new\n\n"
    finally:
        context.streams -= 1
        pump.cancel()
        await asyncio.gather(pump, return_exceptions=True)


async def _pump(context: ApiContext, wanted: Wanted, mailbox: Mailbox) -> None:
    try:
        async for batch in context.live.subscribe([wanted.project_id]):
            mailbox.put(events_of(batch, wanted))
    except BusError as error:
        log.warning("live stream ended", project=wanted.project_id, reason=str(error))
    finally:
        mailbox.put(())


def events_of(batch: MessageBatch, wanted: Wanted) -> list[bytes]:
    """The batch's messages of known devices that are wanted, as events."""
    names = [
        None
        if target.project_id != wanted.project_id
        or not target.device_id
        or (wanted.device_ids is not None and target.device_id not in wanted.device_ids)
        or (wanted.system_ids is not None and target.system_id not in wanted.system_ids)
        else {
            "device_id": target.device_id,
            "project_id": target.project_id,
            "system_id": target.system_id,
            "blueprint_id": target.blueprint_id,
            "network_id": target.network_id,
            "alias_key": target.alias_key,
            "alias": target.alias,
        }
        for target in batch.targets
    ]
    events = []
    for i, place in enumerate(batch.target_index):
        name = names[place]
        if name is not None:
            message_id = str(uuid.UUID(bytes=batch.ids[16 * i : 16 * i + 16]))
            message = {
                "id": message_id,
                **name,
                "event_time": batch.event_time[i],
                "time": batch.time[i],
                "received_time": batch.received_time[i],
                "data": msgspec.Raw(batch.current_of(i)),
            }
            text = msgspec.json.encode(message).translate(_ONE_LINE)
            events.append(b"id: %s\ndata: %s\n\n" % (message_id.encode(), text))
    return events
