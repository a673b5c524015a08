"""One connection of the gateway to the cloud, from HELLO to its end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVar

import msgspec

from protocols.errors import WireError
from protocols.messages import Command
from sync.link.backoff import Backoff
from sync.link.errors import CLOSE_NORMAL, FarewellError, LinkError, TransportClosedError
from sync.link.frames import CommandProgress, Span, Welcome
from sync.link.gateway_end import GatewayEnd
from sync.link.limits import BACKOFF_S_MIN, FRAME_BLOCK_BYTES, RESEND_S_MAX
from sync.link.ports import BlockSource, Downlink, Parcel, Transport
from sync.link.protocol import BlockRefused, GatewayEvent
from sync.link.status import LinkStatus
from sync.registry import RegistryChange, StaleReplicaError
from tidegate.logs import get_logger

E = TypeVar("E", bound=BaseException)

logger = get_logger("link.connection")


class Ended(msgspec.Struct, frozen=True):
    """Why there is no connection (any more)."""

    reason: str
    retry_after_s: float = 0.0
    stood_s: float = 0.0
    """How long it stood, from WELCOME on."""


class Connection:
    """Pulls blocks from the source into the window, passes on what the cloud says."""

    def __init__(
        self,
        transport: Transport,
        end: GatewayEnd,
        *,
        source: BlockSource,
        downlink: Downlink,
        status: LinkStatus,
        turn_up: Callable[[], None],
        wall_ms: Callable[[], int],
        random: Callable[[], float],
    ) -> None:
        self._transport = transport
        self._end = end
        self._source = source
        self._downlink = downlink
        self._status = status
        self._turn_up = turn_up
        self._wall_ms = wall_ms
        self._loop = asyncio.get_running_loop()
        self._dirty = asyncio.Event()
        """The end has something to send."""
        self._changed = asyncio.Event()
        """Set whenever something was received: the window may have room again."""
        self._up_s: float | None = None
        self._resends = Backoff(BACKOFF_S_MIN, RESEND_S_MAX, random)
        self._refused_s = self._loop.time()
        self._resend_at_s: float | None = None
        self._pull: asyncio.Timeout | None = None

    async def run(self, stop: asyncio.Event) -> Ended:
        """Returns when the connection ended, for whatever reason; it is closed then. What source and downlink raise
        comes out in an ExceptionGroup."""
        reason, retry_after_s, close_code = "connection lost", 0.0, CLOSE_NORMAL
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen())
                group.create_task(self._write())
                group.create_task(self._pump())
                group.create_task(self._watch())
                group.create_task(self._leave(stop))
        except* TransportClosedError as lost:
            reason = f"connection lost: {_first(lost)}"
        except* LinkError as errors:  # says more than the loss that may have come with it
            error = _first(errors)
            if isinstance(error, FarewellError):
                reason, retry_after_s = f"the cloud closed the link: {error}", error.retry_after_s
            else:
                reason, close_code = str(error), error.close_code
                self._end.goodbye(error.code, error.text)
        finally:
            await self._close(close_code)
        stood_s = 0.0 if self._up_s is None else self._loop.time() - self._up_s
        return Ended(reason, retry_after_s, stood_s)

    def report(self, progress: CommandProgress) -> bool:
        """Sends it; False if the connection is not up. True does not say that the cloud has it."""
        if self._up_s is None:
            return False
        self._end.report(progress)
        self._dirty.set()
        return True

    async def _listen(self) -> None:
        while True:
            data = await self._transport.receive()
            for event in self._end.receive(data, self._loop.time(), self._wall_ms()):
                await self._take(event)
            self._note()
            self._changed.set()
            self._dirty.set()

    async def _take(self, event: GatewayEvent) -> None:
        match event:
            case Span():
                self._source.accepted(event.epoch, event.first, event.end)
            case BlockRefused():
                self._plan_resend(event)
            case RegistryChange():
                try:
                    await self._downlink.registry_changed(event)
                except StaleReplicaError as error:
                    logger.info("registry snapshot asked for", reason=str(error))
                    self._end.ask_registry(0)
            case Command():
                await self._downlink.command_arrived(event)
            case Welcome():
                self._status.project_id, self._status.gateway_id = event.project_id, event.gateway_id
                self._up_s = self._loop.time()
                self._turn_up()

    async def _pump(self) -> None:
        """Source to window. What was sent before this connection and not accepted is sent again, and so is what was
        refused, after a while."""
        await self._until(lambda: self._end.welcome is not None)
        self._source.rewind()
        while True:
            if self._resend_at_s is not None and self._loop.time() >= self._resend_at_s:
                await self._until(lambda: self._end.idle)
                self._source.rewind()
                self._resend_at_s = None
            parcel = await self._next_parcel()
            if parcel is not None:
                await self._ship(parcel)

    async def _next_parcel(self) -> Parcel | None:
        """None: while the source had nothing, a resend fell due."""
        end = self._end
        # No small blocks trickling into small gaps: a quarter of the window has to be free.
        await self._until(lambda: end.room_bytes >= min(FRAME_BLOCK_BYTES, end.window_bytes // 4))
        pull = self._pull = asyncio.timeout_at(self._resend_at_s)
        try:
            async with pull:
                return await self._source.next(end.frame_blocks_max, min(FRAME_BLOCK_BYTES, end.room_bytes))
        except TimeoutError:
            if not pull.expired():
                raise
            return None
        finally:
            self._pull = None

    async def _ship(self, parcel: Parcel) -> None:
        size = sum(map(len, parcel.blocks))
        await self._until(lambda: self._end.fits(size))
        try:
            self._end.ship(parcel.lane, parcel.blocks, self._loop.time())
        except WireError as error:
            self._plan_resend(BlockRefused(Span(0, 0, 0), error.code, f"not a block: {error.detail}"))
            return
        self._status.blocks_sent += len(parcel.blocks)
        self._note()
        self._dirty.set()
        await asyncio.sleep(0)  # a source that has plenty never waits: the writer and everybody else get their turn

    def _plan_resend(self, refused: BlockRefused) -> None:
        self._status.blocks_refused += 1
        if self._resend_at_s is not None:
            return
        span = refused.span
        logger.warning(
            "blocks refused", code=refused.code, reason=refused.text, epoch=f"{span.epoch:016x}", first_seq=span.first
        )
        now_s = self._loop.time()
        if now_s - self._refused_s > 2 * RESEND_S_MAX:
            self._resends.reset()
        self._refused_s = now_s
        self._resend_at_s = now_s + self._resends.next_s()
        if self._pull is not None:
            self._pull.reschedule(self._resend_at_s)

    async def _watch(self) -> None:
        while True:
            wake_s = self._end.tick(self._loop.time())
            self._dirty.set()
            await asyncio.sleep(wake_s - self._loop.time())

    async def _leave(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._end.goodbye("stopping", "the gateway stops")
        raise FarewellError("stopping", "the gateway stops")

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            self._changed.clear()
            await self._changed.wait()

    async def _write(self) -> None:
        """The only task that waits for a socket that is full: deadlines are kept and answers are read meanwhile. What
        piles up here is bounded by the window."""
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            await self._send_outgoing()

    async def _send_outgoing(self) -> None:
        for frame in self._end.take_outgoing():
            self._status.frames_sent += 1
            self._status.wire_bytes_sent += len(frame)
            await self._transport.send(frame)

    def _note(self) -> None:
        status, end = self._status, self._end
        status.credit_bytes = end.credit_bytes
        status.window_bytes = end.window_bytes
        status.in_flight_bytes = end.in_flight_bytes
        status.frames_unknown = end.frames_unknown
        if end.round_trip_s is not None:
            status.round_trip_ms = 1000 * end.round_trip_s
        if end.cloud_ahead_ms is not None:
            status.cloud_ahead_ms = end.cloud_ahead_ms

    async def _close(self, code: int) -> None:
        """Says goodbye and closes properly if the cloud goes along; a peer that hangs is cut off."""
        self._status.in_flight_bytes = 0
        try:
            async with asyncio.timeout(self._end.deadlines.farewell_s):
                with contextlib.suppress(TransportClosedError):
                    await self._send_outgoing()
                await self._transport.close(code, "")
        except TimeoutError:
            self._transport.abort()


def _first(group: BaseExceptionGroup[E]) -> E:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
