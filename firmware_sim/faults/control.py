"""The control port of a link proxy: a line of JSON in, a line of JSON out, on loopback.

→ {"fault": {"kind": "cut", "seconds": 60}}     sets it; {"fault": {}} ends it
→ {"fault": {…, "by": "A"}, "replace": false}   sets it, unless a fault by somebody else than A is in force
→ {}                                            asks only
← {"state": {…}}                                as ProxyState
← {"error": "…"}                                nothing was changed
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from firmware_sim.faults.fault import Fault, Kind, ProxyState
from firmware_sim.faults.proxy import LinkProxy

LINE_BYTES_MAX: Final = 4096
"""A fault in JSON takes 100."""
ANSWER_S: Final = 5.0
"""The proxy is on the same machine and answers from memory."""
CONTROLS_MAX: Final = 16
"""Connections at once; a person has one."""


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    fault: Fault | None = None
    replace: bool = True
    """False: a fault that somebody else has set stays."""


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    state: ProxyState | None = None
    error: str = ""


class ControlError(Exception):
    """The proxy did not answer, or said no."""


class ControlPort:
    """Serves one proxy."""

    def __init__(self, proxy: LinkProxy, *, changed: Callable[[Fault], None] = lambda fault: None) -> None:
        """`changed` hears of each fault that is set."""
        self._proxy = proxy
        self._changed = changed
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self, port: int = 0) -> int:
        """The port it listens on, on loopback."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, limit=LINE_BYTES_MAX)
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            for writer in list(self._open):
                writer.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= CONTROLS_MAX:
            writer.close()
            return
        self._open.add(writer)
        try:
            while line := await reader.readline():
                writer.write(msgspec.json.encode(self._answer(line)) + b"\n")
                await writer.drain()
        except (ValueError, ConnectionError):
            pass  # a line beyond the limit, or somebody who went away
        finally:
            self._open.discard(writer)
            writer.close()

    def _answer(self, line: bytes) -> Answer:
        try:
            order = msgspec.json.decode(line, type=Order)
        except msgspec.MsgspecError as error:
            return Answer(error=str(error))
        if order.fault is not None and (order.replace or self._is_free(order.fault)):
            self._proxy.set_fault(order.fault)
            self._changed(order.fault)
        return Answer(state=self._proxy.state())

    def _is_free(self, fault: Fault) -> bool:
        """Whether nobody else's fault is in force."""
        now = self._proxy.fault
        return now.kind is Kind.NONE or now.by == fault.by


async def command(port: int, fault: Fault | None = None, *, replace: bool = True) -> ProxyState:
    """Sets a fault, or only asks for the state, which is answered. With `replace` False somebody else's fault stays:
    the state then says whose. Raises ControlError."""
    try:
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=LINE_BYTES_MAX)
            try:
                writer.write(msgspec.json.encode(Order(fault, replace)) + b"\n")
                answer = msgspec.json.decode(await reader.readline(), type=Answer)
            finally:
                writer.close()
    except (OSError, msgspec.MsgspecError) as error:
        raise ControlError(f"the link proxy on port {port} does not answer: {error}") from None
    if answer.state is None:
        raise ControlError(answer.error or "the link proxy gave no answer")
    return answer.state
