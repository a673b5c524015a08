"""The gateway's side of the link: keeps one connection to the cloud, whatever happens to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from sync.link.backoff import Backoff
from sync.link.connection import Connection, Ended
from sync.link.dial import WebSocketDial
from sync.link.errors import DialError
from sync.link.frames import CommandProgress, ConfigurationResult, Hello
from sync.link.gateway_end import GatewayEnd
from sync.link.limits import (
    BACKOFF_S_MAX,
    BACKOFF_S_MIN,
    CREDIT_BYTES,
    FRAME_BLOCK_BYTES,
    STABLE_S,
    WINDOW_BYTES_MIN,
    WINDOW_BYTES_START,
    Deadlines,
)
from sync.link.pace import PACE_STEP_S
from sync.link.ports import BlockSource, Books, Configured, Dial, Downlink
from sync.link.status import LinkState, LinkStatus
from tidegate.logs import get_logger
from tidegate.pause import pause

logger = get_logger("link.client")


class LinkClient:
    """`run` keeps the link until it is told to stop; `status` says how it stands."""

    def __init__(
        self,
        url: str,
        *,
        token: Callable[[int], str],
        hello: Callable[[], Hello],
        source: BlockSource,
        downlink: Downlink,
        books: Books | None = None,
        configured: Configured | None = None,
        wall_ms: Callable[[], int],
        random: Callable[[], float],
        dial: Dial | None = None,
        ca_file: Path | None = None,
        window_bytes_max: int = CREDIT_BYTES,
        bytes_per_s_max: int = 0,
        deadlines: Deadlines | None = None,
    ) -> None:
        """`token` makes one for an attempt at the Unix second that it is given, the cloud's as far as it is known, so
        that a wrong clock at boot keeps nobody out; `hello` is asked anew for each connection; `random` gives numbers
        from 0 to below 1; `dial` opens connections, by default WebSockets to `url`, for which `ca_file` holds
        authorities (PEM) to trust beside the system's, and OSError is raised if it does not serve; `window_bytes_max`
        bounds what is in flight, however much credit the cloud gives; `bytes_per_s_max` what is sent, 0: nothing does.
        Without `books` or `configured`, the hello must not name their feature."""
        self._url = url
        self._token = token
        self._hello = hello
        self._source = source
        self._downlink = downlink
        self._books = books
        self._configured = configured
        self._wall_ms = wall_ms
        self._random = random
        self._window_bytes_max = window_bytes_max
        self._deadlines = deadlines or Deadlines()
        self._dial = dial or WebSocketDial(url, wall_ms=wall_ms, ca_file=ca_file, deadlines=self._deadlines)
        self._frame_bytes_max = FRAME_BLOCK_BYTES
        if bytes_per_s_max:
            self._frame_bytes_max = min(FRAME_BLOCK_BYTES, max(1, int(bytes_per_s_max * PACE_STEP_S)))
        self._window_bytes = WINDOW_BYTES_START
        """What the next connection begins with: no more than the last one had found out to be too much."""
        self._connection: Connection | None = None
        self.status = LinkStatus(LinkState.CONNECTING, wall_ms(), bytes_per_s_max=bytes_per_s_max)

    async def run(self, stop: asyncio.Event) -> None:
        """Returns once `stop` is set and the cloud was told goodbye. Raises nothing but what source and downlink raise,
        in an ExceptionGroup."""
        backoff = Backoff(BACKOFF_S_MIN, BACKOFF_S_MAX, self._random)
        while not stop.is_set():
            ended = await self._once(stop)
            if ended.stood_s >= STABLE_S:
                backoff.reset()
            if not stop.is_set():
                await self._wait(stop, ended, backoff)
        self._turn(LinkState.DOWN, "stopped")

    def report(self, progress: CommandProgress) -> bool:
        """Tells the cloud what became of a command. False while the link is down: the caller keeps it."""
        return self._connection is not None and self._connection.report(progress)

    def tell_configuration(self, result: ConfigurationResult) -> None:
        """Tells the cloud what became of a pushed configuration, now, and on each connection as `configured` says."""
        if self._connection is not None:
            self._connection.tell_configuration(result)

    async def _once(self, stop: asyncio.Event) -> Ended:
        """One attempt, and the connection for as long as it stands."""
        attempt = asyncio.ensure_future(self._open())
        stopping = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait((attempt, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not attempt.done():
                return Ended("stopped")
            self._connection, end = attempt.result()
            ended = await self._connection.run(stop)
            self._window_bytes = min(WINDOW_BYTES_START, max(WINDOW_BYTES_MIN, end.window.size_bytes))
            return ended
        except DialError as refused:
            if refused.server_time_ms is not None:
                self.status.cloud_ahead_ms = refused.server_time_ms - self._wall_ms()
            return Ended(refused.reason, refused.retry_after_s)
        finally:
            self._connection = None
            attempt.cancel()
            stopping.cancel()
            await asyncio.wait((attempt, stopping))

    async def _open(self) -> tuple[Connection, GatewayEnd]:
        hello = self._hello()
        now_s = (self._wall_ms() + self.status.cloud_ahead_ms) // 1000
        transport = await self._dial(self._token(now_s), software=hello.software)
        end = GatewayEnd(
            hello,
            now_s=asyncio.get_running_loop().time(),
            deadlines=self._deadlines,
            window_bytes=self._window_bytes,
            window_bytes_max=self._window_bytes_max,
            frame_bytes_max=self._frame_bytes_max,
        )
        connection = Connection(
            transport,
            end,
            source=self._source,
            downlink=self._downlink,
            books=self._books,
            configured=self._configured,
            status=self.status,
            turn_up=lambda: self._turn(LinkState.UP, ""),
            wall_ms=self._wall_ms,
            random=self._random,
        )
        return connection, end

    async def _wait(self, stop: asyncio.Event, ended: Ended, backoff: Backoff) -> None:
        wait_s = backoff.next_s(ended.retry_after_s)
        self.status.failures = backoff.failures
        self.status.retry_at_ms = self._wall_ms() + int(wait_s * 1000)
        self._turn(LinkState.DOWN, ended.reason)
        await pause(stop, wait_s)

    def _turn(self, state: LinkState, reason: str) -> None:
        status = self.status
        if (status.state, status.reason) != (state, reason):
            logger.info("link", state=state.value, reason=reason, url=self._url)
        if status.state is not state:
            status.since_ms = self._wall_ms()
        status.state, status.reason = state, reason
        if state is LinkState.UP:
            status.connections += 1
            status.failures = status.retry_at_ms = 0
