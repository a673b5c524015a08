"""The cloud's side of one link, over any transport. Storing, registry and commands are the session's to give."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

import msgspec

from protocols.block import check_block
from protocols.errors import MalformedError, WireError
from sync.link.cloud_end import CloudEnd
from sync.link.errors import (
    CLOSE_INTERNAL,
    CLOSE_NORMAL,
    CLOSE_TRY_LATER,
    FarewellError,
    LinkError,
    TransportClosedError,
)
from sync.link.frames import (
    Anchors,
    CommandKept,
    CommandProgress,
    ConfigurationResult,
    Credit,
    Gaps,
    Goodbye,
    Hello,
    Holdings,
    RegistryAsk,
    Span,
    Standing,
)
from sync.link.limits import BOOKS_RETRY_S, CREDIT_BYTES, CREDIT_BYTES_MIN, Deadlines
from sync.link.ports import (
    CloudBooks,
    CommandFeed,
    ConfigurationFeed,
    CreditFeed,
    Intake,
    NotTakenError,
    RegistryFeed,
    Transport,
)
from sync.link.protocol import Shipped, Told
from tidegate.logs import get_logger

logger = get_logger("link.server")

CLOSE_REASON_CHARS: Final = 100
"""RFC 6455, 5.5.1: 123 bytes at most."""


def unix_ms() -> int:
    return time.time_ns() // 1_000_000


class GatewaySession:
    """One connection of one gateway, as the platform sees it."""

    def __init__(
        self,
        *,
        project_id: str,
        gateway_id: str,
        intake: Intake,
        registry: RegistryFeed,
        commands: CommandFeed,
        books: CloudBooks | None = None,
        credit: CreditFeed | None = None,
        configuration: ConfigurationFeed | None = None,
        wall_ms: Callable[[], int] = unix_ms,
        credit_bytes: int = CREDIT_BYTES,
        deadlines: Deadlines | None = None,
    ) -> None:
        """`books`: without, the gateway is told that none are kept here; `credit`: without, `credit_bytes` always;
        `configuration`: without, none is pushed."""
        if 0 < credit_bytes < CREDIT_BYTES_MIN:
            raise ValueError(f"a credit of {credit_bytes:,} bytes cannot hold every block; {CREDIT_BYTES_MIN:,} can")
        self.project_id = project_id
        self.gateway_id = gateway_id
        self.intake = intake
        self.registry = registry
        self.commands = commands
        self.books = books
        self.credit = credit
        self.configuration = configuration
        self.wall_ms = wall_ms
        self.credit_bytes = credit_bytes
        self.deadlines = deadlines or Deadlines()
        self.figures = SessionFigures()
        self.hello: Hello | None = None
        """What the gateway said of itself, once it did."""
        self._end: asyncio.Future[Goodbye] = asyncio.get_running_loop().create_future()

    def end(self, code: str, text: str, retry_after_s: float = 0.0) -> None:
        """Closes the connection in good order: what is being stored is answered first. The gateway stays away for
        `retry_after_s` at least."""
        if not self._end.done():
            self._end.set_result(Goodbye(code, text, int(retry_after_s * 1000)))

    async def ended(self) -> Goodbye:
        """Waits until `end` is called."""
        return await asyncio.shield(self._end)


class SessionFigures(msgspec.Struct):
    """What came over one connection."""

    frames: int = 0
    wire_bytes: int = 0
    """Of WebSocket messages, without their framing."""
    blocks_accepted: int = 0
    block_bytes_accepted: int = 0
    blocks_refused: int = 0
    """Damaged, or not taken by the intake."""
    frames_damaged: int = 0
    """Frames of blocks that could not be unpacked, and were refused whole."""
    frames_unknown: int = 0
    reason: str = ""
    """Why it ended."""


async def serve(transport: Transport, session: GatewaySession) -> None:
    """Speaks to the gateway until the connection or the session ends; closes the transport.

    Raises what intake or feeds raise unexpectedly, in an ExceptionGroup, after it told the gateway to come back later.
    """
    await _Service(transport, session).run()


class _Service:
    def __init__(self, transport: Transport, session: GatewaySession) -> None:
        self._transport = transport
        self._session = session
        self._loop = asyncio.get_running_loop()
        self._figures = session.figures
        self._end = CloudEnd(now_s=self._loop.time(), deadlines=session.deadlines)
        self._intakes: set[asyncio.Task[None]] = set()
        self._feed: asyncio.Task[None] | None = None
        self._sending = asyncio.Lock()
        self._told: dict[type[Told], Told] = {}
        """Not on the books yet; of standings, the newest."""
        self._was_told = asyncio.Event()

    async def run(self) -> None:
        close_code, reason = CLOSE_INTERNAL, "internal"
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen(group))
                group.create_task(self._watch())
                group.create_task(self._farewell())
                group.create_task(self._keep_books())
        except* TransportClosedError:
            close_code, reason = CLOSE_NORMAL, "connection lost"
        except* LinkError as errors:
            error = _first(errors)
            close_code, reason = error.close_code, str(error)
            if not isinstance(error, FarewellError):
                logger.warning("link ended", gateway=self._session.gateway_id, code=error.code, reason=error.text)
                await self._try_goodbye(error.code, error.text)
        except* Exception:
            close_code = CLOSE_TRY_LATER
            await self._try_goodbye("internal", "the cloud has a defect or an outage; it is in its log")
            raise
        finally:
            self._figures.frames_damaged = self._end.frames_damaged
            self._figures.frames_unknown = self._end.frames_unknown
            self._figures.reason = reason
            await self._close(close_code, reason)

    async def _listen(self, group: asyncio.TaskGroup) -> None:
        while True:
            data = await self._transport.receive()
            self._figures.frames += 1
            self._figures.wire_bytes += len(data)
            for event in self._end.receive(data, self._loop.time(), self._session.wall_ms()):
                match event:
                    case Shipped():
                        task = group.create_task(self._store(event))
                        self._intakes.add(task)
                        task.add_done_callback(self._intakes.discard)
                    case CommandProgress():
                        await self._session.commands.progress(event)
                    case ConfigurationResult():
                        assert self._session.configuration is not None, "the cloud's end takes none else"
                        await self._session.configuration.became(event)
                    case RegistryAsk():
                        self._follow_registry(group, event.revision)
                    case Hello():
                        await self._greet(group, event)
                    case Anchors() | Gaps() | Standing() | Holdings():
                        self._told[type(event)] = event
                        self._was_told.set()
            await self._flush()

    async def _greet(self, group: asyncio.TaskGroup, hello: Hello) -> None:
        session = self._session
        session.hello = hello
        credit = Credit(session.credit_bytes)
        if session.credit is not None:
            credits = session.credit.credits()
            credit = await anext(credits)
            group.create_task(self._send_credit(credits))
        self._end.greet(
            session.project_id,
            session.gateway_id,
            credit,
            session.wall_ms(),
            books=session.books is not None,
            configures=session.configuration is not None,
        )
        self._follow_registry(group, hello.registry_revision)
        group.create_task(self._send_commands())
        if session.configuration is not None:
            revision = hello.configuration_revision if self._end.configures else None
            group.create_task(self._send_configurations(session.configuration, revision))

    async def _keep_books(self) -> None:
        """One thing after the other: they are few, and wait for a database."""
        while True:
            await self._was_told.wait()
            self._was_told.clear()
            while self._told:
                told = self._told.pop(next(iter(self._told)))
                if await self._keep(told):
                    await self._flush()
                else:
                    self._told.setdefault(type(told), told)
                    await asyncio.sleep(BOOKS_RETRY_S)

    async def _keep(self, told: Told) -> bool:
        """False: it is to be tried again."""
        books = self._session.books
        assert books is not None, "the cloud's end takes none else"
        try:
            match told:
                case Anchors():
                    await books.keep_anchors(told.anchors)
                    self._end.keep(told)
                case Gaps():
                    self._end.keep(told, await books.keep_gaps(told.gaps))
                case Holdings():
                    self._end.resend(await books.holdings(told.spans))
                case Standing():
                    await books.standing(told)
        except NotTakenError as error:
            what = type(told).__name__
            logger.warning("not kept", gateway=self._session.gateway_id, what=what, code=error.code, reason=error.text)
            return isinstance(told, Standing)  # the next one comes soon, and says more
        return True

    async def _send_credit(self, credits: AsyncIterator[Credit]) -> None:
        async for credit in credits:
            self._end.credit(credit)
            await self._flush()

    async def _store(self, shipped: Shipped) -> None:
        """Verifies, stores and answers one request. A damaged block is refused; its neighbours go on."""
        whole: list[tuple[int, bytes, Span]] = []
        for place, block in enumerate(shipped.blocks):
            try:
                head = check_block(block)
                if head.size != len(block):
                    raise MalformedError(f"{len(block) - head.size} bytes follow the block")
            except WireError as error:
                self._refuse(shipped.request, [(place, block)], error.code, error.detail)
            else:
                whole.append((place, block, Span(head.epoch, head.first_seq, head.end_seq)))
        if whole:
            try:
                await self._session.intake.accept(shipped.lane, [block for _, block, _ in whole])
            except NotTakenError as error:
                self._refuse(shipped.request, [(place, block) for place, block, _ in whole], error.code, error.text)
            else:
                size = sum(len(block) for _, block, _ in whole)
                self._end.accept(shipped.request, [span for _, _, span in whole], size)
                self._figures.blocks_accepted += len(whole)
                self._figures.block_bytes_accepted += size
        await self._flush()

    def _refuse(self, request: int, blocks: list[tuple[int, bytes]], code: str, text: str) -> None:
        logger.warning("blocks refused", gateway=self._session.gateway_id, blocks=len(blocks), code=code, reason=text)
        self._figures.blocks_refused += len(blocks)
        for place, block in blocks:
            self._end.refuse(request, place, len(block), code, text)

    def _follow_registry(self, group: asyncio.TaskGroup, revision: int) -> None:
        if self._feed is not None:
            self._feed.cancel()
        self._feed = group.create_task(self._send_registry(revision))

    async def _send_registry(self, revision: int) -> None:
        async for change in self._session.registry.changes(revision):
            self._end.registry(change)
            await self._flush()

    async def _send_commands(self) -> None:
        async for told in self._session.commands.commands():
            if isinstance(told, CommandKept):
                self._end.command_kept(told)
            else:
                self._end.command(told)
            await self._flush()

    async def _send_configurations(self, feed: ConfigurationFeed, revision: int | None) -> None:
        async for configuration in feed.configurations(revision):
            self._end.configuration(configuration)
            await self._flush()

    async def _watch(self) -> None:
        while True:
            now_s = self._loop.time()
            await asyncio.sleep(self._end.tick(now_s) - now_s)

    async def _farewell(self) -> None:
        goodbye = await self._session.ended()
        if self._intakes:
            await asyncio.wait(self._intakes, timeout=self._session.deadlines.farewell_s)
        self._end.goodbye(goodbye.code, goodbye.text, goodbye.retry_after_ms / 1000)
        await self._flush()
        raise FarewellError(goodbye.code, goodbye.text)

    async def _flush(self) -> None:
        async with self._sending:
            for frame in self._end.take_outgoing():
                await self._transport.send(frame)

    async def _try_goodbye(self, code: str, text: str) -> None:
        self._end.goodbye(code, text)
        try:
            async with asyncio.timeout(self._session.deadlines.farewell_s):
                await self._flush()
        except (TransportClosedError, TimeoutError):
            pass  # it was a courtesy

    async def _close(self, code: int, reason: str) -> None:
        try:
            async with asyncio.timeout(self._session.deadlines.farewell_s):
                await self._transport.close(code, reason[:CLOSE_REASON_CHARS])
        except TimeoutError:  # a peer that reads no more
            self._transport.abort()


def _first(group: BaseExceptionGroup[LinkError]) -> LinkError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
