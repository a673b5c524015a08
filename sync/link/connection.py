"""One connection of the gateway to the cloud, from HELLO to its end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVar

import msgspec

from protocols.errors import WireError
from protocols.messages import Command, Lane
from sync.link.backoff import Backoff
from sync.link.errors import CLOSE_NORMAL, FarewellError, LinkError, TransportClosedError
from sync.link.frames import (
    CommandKept,
    CommandProgress,
    Configuration,
    ConfigurationResult,
    ProbeAnswer,
    Resend,
    Span,
    Welcome,
)
from sync.link.gateway_end import GatewayEnd
from sync.link.limits import BACKOFF_S_MIN, BOOKS_EVERY_S, RESEND_S_MAX
from sync.link.pace import PACE_STEP_S, Pace
from sync.link.ports import BlockSource, Books, Configured, Downlink, Parcel, Transport
from sync.link.protocol import BlockRefused, GatewayEvent, Kept
from sync.link.status import LinkStatus
from sync.link.teller import Teller
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
    """Takes blocks from the source into the window, passes on what the cloud says."""

    def __init__(
        self,
        transport: Transport,
        end: GatewayEnd,
        *,
        source: BlockSource,
        downlink: Downlink,
        books: Books | None,
        configured: Configured | None,
        status: LinkStatus,
        turn_up: Callable[[], None],
        wall_ms: Callable[[], int],
        random: Callable[[], float],
    ) -> None:
        self._transport = transport
        self._end = end
        self._source = source
        self._downlink = downlink
        self._configured = configured
        self._teller = Teller(books, end, status)
        self._status = status
        self._turn_up = turn_up
        self._wall_ms = wall_ms
        self._loop = asyncio.get_running_loop()
        self._pace = Pace(status.bytes_per_s_max, self._loop.time())
        self._dirty = asyncio.Event()
        """The end has something to send."""
        self._changed = asyncio.Event()
        """Something was received or sent, the source has more, a resend is due: there may be something to ship."""
        self._began_s = self._loop.time()
        self._up_s: float | None = None
        self._held: Parcel | None = None
        """Taken from the source; it has to wait until it fits."""
        self._resends = Backoff(BACKOFF_S_MIN, RESEND_S_MAX, random)
        self._refused_s = self._loop.time()
        self._resend_at_s: float | None = None

    async def run(self, stop: asyncio.Event) -> Ended:
        """Returns when the connection ended, for whatever reason; it is closed then. What source, books and downlink
        raise comes out in an ExceptionGroup."""
        reason, retry_after_s, close_code = "connection lost", 0.0, CLOSE_NORMAL
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen())
                group.create_task(self._write())
                group.create_task(self._pump())
                group.create_task(self._watch())
                group.create_task(self._keep_books())
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
            await self._source.end()
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

    def tell_configuration(self, result: ConfigurationResult) -> None:
        """Sends it if the connection is up; it is told again on the next one."""
        if self._up_s is not None:
            self._end.tell_configuration(result)
            self._dirty.set()

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
            case CommandKept():
                self._downlink.command_kept(event)
            case Configuration():
                assert self._configured is not None, "the hello names the feature"
                self._configured.wanted(event)
            case Kept():
                self._teller.kept(event, self._loop.time())
            case ProbeAnswer():
                self._teller.probed(event)
            case Resend():
                self._teller.resend(event)
            case Welcome():
                self._status.project_id, self._status.gateway_id = event.project_id, event.gateway_id
                self._up_s = self._loop.time()
                self._teller.greeted(event, self._up_s - self._began_s)
                self._turn_up()
                self._downlink.linked(confirmed=self._end.keeps_commands)
                if self._configured is not None and (result := self._configured.result()) is not None:
                    self._end.tell_configuration(result)

    async def _pump(self) -> None:
        """Source to end: one frame at a time, the next one when the last is being sent, so that what is live never
        waits behind more than that. What was refused is sent again, after a while."""
        await self._until(lambda: self._up_s is not None)
        self._source.begin(self._changed.set)
        while True:
            self._changed.clear()
            if self._resend_at_s is not None and self._loop.time() >= self._resend_at_s:
                await self._until(lambda: self._end.idle)
                self._held = self._resend_at_s = None
                self._source.give_back()
            parcel = self._next_parcel()
            if parcel is None:
                await self._changed.wait()
            else:
                self._ship(parcel)
                await asyncio.sleep(0)  # a source that has plenty never waits: everybody else gets their turn

    def _next_parcel(self) -> Parcel | None:
        """What is to be shipped now, if there is anything and nothing stands against it."""
        if self._end.has_outgoing or self._teller.holds_back(self._loop.time()):
            self._dirty.set()
            return None
        room = self._end.room()
        held = self._held
        if held is not None:
            if self._end.fits(held.lane, _size(held)):
                self._held = None
                return held
            if held.lane is Lane.LIVE or not self._end.window.is_backfill_paused:
                return None  # or it would never find room
            room = msgspec.structs.replace(room, backfill_bytes_max=0)
        parcel = self._source.take(room) if room.bytes_max or room.backfill_bytes_max else None
        if parcel is not None and not self._end.fits(parcel.lane, _size(parcel)):
            self._held = parcel
            return None
        return parcel

    def _ship(self, parcel: Parcel) -> None:
        try:
            self._end.ship(parcel.lane, parcel.blocks, self._loop.time())
        except WireError as error:
            self._plan_resend(BlockRefused(Span(0, 0, 0), error.code, f"not a block: {error.detail}"))
            return
        self._status.blocks_sent += len(parcel.blocks)
        self._note()
        self._dirty.set()

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
        self._loop.call_at(self._resend_at_s, self._changed.set)

    async def _keep_books(self) -> None:
        await self._until(lambda: self._up_s is not None)
        while True:
            self._teller.look(self._loop.time())
            self._dirty.set()
            self._changed.set()  # an anchor may have come up: the pump sees to it
            await asyncio.sleep(BOOKS_EVERY_S)

    async def _watch(self) -> None:
        sent_bytes = 0
        while True:
            if self._transport.sent_bytes != sent_bytes:
                sent_bytes = self._transport.sent_bytes
                self._end.moved(self._loop.time(), written=False)
            wake_s = self._end.tick(self._loop.time())
            self._dirty.set()
            if self._up_s is None:  # WELCOME changes what there is to watch
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(wake_s):
                        await self._until(lambda: self._up_s is not None)
            else:
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
        """The only task that waits for a socket that is full: deadlines are kept and answers are read meanwhile."""
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            await self._send_outgoing()

    async def _send_outgoing(self) -> None:
        while self._end.has_outgoing:
            while wait_s := self._pace.wait_s(self._loop.time()):
                await asyncio.sleep(min(wait_s, PACE_STEP_S))
                self._end.moved(self._loop.time(), written=False)
            frame = self._end.next_outgoing()
            self._changed.set()  # the pump may ship the next one
            self._status.frames_sent += 1
            self._status.wire_bytes_sent += len(frame)
            await self._transport.send(frame)
            now_s = self._loop.time()
            self._pace.sent(len(frame), now_s)
            self._end.moved(now_s, written=True)

    def _note(self) -> None:
        status, end, window = self._status, self._end, self._end.window
        status.credit_bytes = window.credit_bytes
        status.backfill_credit_bytes = window.backfill_credit_bytes
        status.window_bytes = window.size_bytes
        status.in_flight_bytes = window.in_flight_bytes
        status.backfill_in_flight_bytes = window.backfill_in_flight_bytes
        status.frames_unknown = end.frames_unknown
        if end.round_trip_s is not None:
            status.round_trip_ms = 1000 * end.round_trip_s
        if end.cloud_ahead_ms is not None:
            status.cloud_ahead_ms = end.cloud_ahead_ms

    async def _close(self, code: int) -> None:
        """Says goodbye and closes properly if the cloud goes along; a peer that hangs is cut off."""
        self._status.in_flight_bytes = self._status.backfill_in_flight_bytes = 0
        try:
            async with asyncio.timeout(self._end.deadlines.farewell_s):
                with contextlib.suppress(TransportClosedError):
                    for frame in self._end.take_outgoing():
                        await self._transport.send(frame)
                await self._transport.close(code, "")
        except TimeoutError:
            self._transport.abort()


def _size(parcel: Parcel) -> int:
    return sum(map(len, parcel.blocks))


def _first(group: BaseExceptionGroup[E]) -> E:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
