"""The status API, over the gateway's view: requests in, answers out.

/            the page                          /accounting   where every record is, and each part's figures
/healthz     the process answers               /rates        each of the last seconds
/readyz      devices can be served, or 503     /latest       devices heard and their values
/metrics     for Prometheus                    /rejects      what was turned away, with its bytes
/where?id=…  where a record is                /commands     for devices, and how they stand
                                               /reload       what became of the configuration that was read last
/tail?device=…&listener=…&rejected=1    messages as they come, as server-sent events
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import Final

from edge.http import TEXT, Answer, Request, as_json
from edge.status.accounting import refused_records
from edge.status.commands import commands_shown
from edge.status.http import HTML, Stream, problem
from edge.status.latest import DevicesHeard
from edge.status.tail import CLIENTS_MAX, Tail, TailClient, TailFilter
from edge.status.view import GatewayView
from edge.status.where import UnreadableIdError, where
from sync.resolve import Resolver

PAGE: Final = Path(__file__).with_name("page.html")
KEEP_ALIVE_S: Final = 15.0
"""A comment in a tail where nothing happens, so that a client that is gone is noticed."""
GATHER_S: Final = 0.1
"""What comes within it leaves together: a screen needs no more than ten a second."""


class StatusApi:
    def __init__(self, view: GatewayView, *, loopback_only: bool) -> None:
        """`loopback_only`: names other than this machine's own are refused, so that no page of the web can have a
        browser here ask for it under a name of its own (DNS rebinding)."""
        self._view = view
        self._loopback_only = loopback_only
        self._metrics: Callable[[], Answer] | None = None
        self._answers: Mapping[str, Callable[[], Answer]] = {
            "/": lambda: Answer(PAGE.read_bytes(), HTML),
            "/healthz": lambda: Answer(b"ok\n", TEXT),
            "/readyz": self._ready,
            "/metrics": self._read_metrics,
            "/accounting": lambda: as_json(view.accounting()),
            "/rates": lambda: as_json({"seconds": list(view.rates.seconds)}),
            "/latest": self._latest,
            "/commands": self._commands,
            "/rejects": lambda: as_json(view.rejections()),
            "/reload": lambda: as_json(view.parts.reload.last),
        }

    async def answer(self, request: Request) -> Answer | Stream:
        if self._loopback_only and not _is_local(request.host):
            return problem(403, "host", "ask for 127.0.0.1 or localhost: this is for this machine alone")
        if request.method not in ("GET", "HEAD"):
            return problem(405, "method", "the status API answers GET alone")
        if request.path == "/tail" and request.method == "GET":
            return self._tail(request)
        if request.path == "/where":
            return await self._where(request)
        answer = self._answers.get(request.path)
        if answer is None:
            return problem(
                404, "not_found", f"no such path; there are {', '.join([*self._answers, '/where', '/tail'])}"
            )
        return answer()

    def _ready(self) -> Answer:
        reasons = self._view.not_ready()
        link = "up" if self._view.is_link_up else "down"
        return as_json({"ready": not reasons, "reasons": reasons, "link": link}, 503 if reasons else 200)

    def _latest(self) -> Answer:
        latest = self._view.messages.latest
        return as_json(DevicesHeard(latest.devices(), latest.forgotten))

    def _commands(self) -> Answer:
        parts = self._view.parts
        return as_json(commands_shown(parts.commands, parts.replica.registry, parts.clock.true_ms()))

    def _read_metrics(self) -> Answer:
        if self._metrics is None:
            from edge.status.metrics import CONTENT_TYPE, Metrics

            metrics = Metrics(self._view)
            self._metrics = lambda: Answer(metrics.text(), CONTENT_TYPE)
        return self._metrics()

    async def _where(self, request: Request) -> Answer:
        parts = self._view.parts
        try:
            found = await where(
                request.query.get("id", ""),
                parts.log,
                resolver=lambda: Resolver(parts.replica.registry, parts.anchors.by_boot),
                refused=lambda: refused_records(parts.recorder, parts.collector),
            )
            return as_json(found)
        except UnreadableIdError as error:
            return problem(400, "id", str(error), "give one as history, inbox, rejects and `tail --json` show them")

    def _tail(self, request: Request) -> Answer | Stream:
        query = request.query
        rejected_only = query.get("rejected", "") in ("1", "true")
        wanted = TailFilter(query.get("device", ""), query.get("listener", ""), rejected_only)
        tail = self._view.messages.tail
        client = tail.open(wanted)
        if client is None:
            return problem(503, "limit", f"{CLIENTS_MAX} look on already, which is all there may be")
        return TailStream(tail, client)


class TailStream:
    """The Stream of a tail."""

    def __init__(self, tail: Tail, client: TailClient) -> None:
        self._tail = tail
        self._client = client

    async def parts(self) -> AsyncGenerator[bytes, None]:
        client = self._client
        yield b"retry: 2000\n\n"
        while True:
            try:
                async with asyncio.timeout(KEEP_ALIVE_S):
                    events, missed = await client.next()
            except TimeoutError:
                events, missed = [], 0
            if client.is_closed and not (events or missed):
                return
            parts = [b'event: gap\ndata: {"missed":%d}\n\n' % missed] if missed else []
            parts.extend(b"data: " + event + b"\n\n" for event in events)
            yield b"".join(parts) or b": nothing for a while\n\n"
            await asyncio.sleep(GATHER_S)

    def close(self) -> None:
        """No new events; those that wait are still written, if there is somebody to write them to."""
        self._tail.leave(self._client)
        self._client.close()


def _is_local(host: str) -> bool:
    """Whether a Host header is an address or `localhost`, with or without a port."""
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    name = name.strip("[]").lower()
    if name == "localhost":
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
