"""What MQTT, HTTP and frames have in common over TCP: one connection, and deadlines for every answer."""

from __future__ import annotations

import abc
import asyncio
from typing import cast

from firmware_sim.devices.carriers.carrier import Carrier, Owner
from firmware_sim.devices.packets import ProtocolError
from firmware_sim.devices.roster import RosterDevice
from firmware_sim.devices.surroundings import DeviceSettings, Runtime


class StreamCarrier(Carrier, asyncio.Protocol):
    """From TCP's handshake to its end."""

    def __init__(self, owner: Owner, identity: RosterDevice, settings: DeviceSettings, runtime: Runtime) -> None:
        super().__init__(owner, identity, settings, runtime)
        self._transport: asyncio.Transport | None = None
        self._abandoned = False
        self._refused = False
        self._reason = "the server closed the connection"
        self._wrote_s = 0.0
        self._watch_s = settings.answer_s / 4

    @property
    def is_congested(self) -> bool:
        """True while written bytes wait for TCP to take them."""
        return self._transport is not None and self._transport.get_write_buffer_size() > 0

    async def open(self) -> None:
        host, port = self._place
        await self._runtime.loop.create_connection(lambda: self, host, port)

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._wrote_s = self._timers.now()
            self._transport.write(data)

    def close(self) -> None:
        self._abandoned = True
        if self._transport is not None:
            if self.is_up:
                self._say_goodbye()
            self._transport.close()

    def abort(self, reason: str) -> None:
        self._abandoned = True
        self._reason = reason
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have all of the interface, but are no subclasses of it.
        self._transport = cast(asyncio.Transport, transport)
        if self._abandoned:
            self._transport.abort()
            return
        self._greet()
        self._watch()

    def data_received(self, data: bytes) -> None:
        try:
            self._received(data)
        except ProtocolError as error:
            self._refuse(str(error))

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._abandoned = True
        self.is_up = False
        self._owner.went_down(self, self._reason if error is None else str(error), refused=self._refused)

    @abc.abstractmethod
    def _greet(self) -> None:
        """The connection stands: what the protocol begins with."""

    @abc.abstractmethod
    def _received(self, data: bytes) -> None:
        """Raises ProtocolError."""

    def _say_goodbye(self) -> None:
        """Before it ends in order."""

    def _asked_since_s(self) -> float | None:
        """When something was asked, other than by a message, that has no answer yet."""
        return None

    def _idles(self, now_s: float) -> None:
        """Every now and then, while all is well."""

    def _refuse(self, reason: str) -> None:
        self._refused = True
        self.abort(reason)

    def _watch(self) -> None:
        """Every now and then, while it lives: are answers due?"""
        if self._abandoned or self._transport is None:
            return
        now_s, answer_s = self._timers.now(), self._settings.answer_s
        since = [at for at in (self._asked_since_s(), self._owner.waits_since_s()) if at is not None]
        if since and now_s - min(since) > answer_s:
            self.abort(f"no answer within {answer_s:g} s")
            return
        self._idles(now_s)
        self._timers.after(self._watch_s, self._watch)
