"""What UDP and CoAP have in common: a socket of its own for each carrier, so that no answer to an earlier one can be
taken for an answer to this."""

from __future__ import annotations

import abc
import asyncio
from typing import cast

from firmware_sim.devices.carriers.turns import TurnCarrier
from firmware_sim.devices.packets import ProtocolError


class DatagramCarrier(TurnCarrier, asyncio.DatagramProtocol):
    _transport: asyncio.DatagramTransport | None = None

    async def open(self) -> None:
        await self._runtime.loop.create_datagram_endpoint(lambda: self, remote_addr=self._place)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have all of the interface, but are no subclasses of it.
        self._transport = cast(asyncio.DatagramTransport, transport)
        if self._has_ended:
            self._shut()
        else:
            self._stands()

    def datagram_received(self, data: bytes, _address: object) -> None:
        if self._has_ended:
            return
        try:
            self._received(data)
        except ProtocolError as error:
            self._end(str(error), refused=True)

    def error_received(self, error: Exception) -> None:
        """As of a port that nobody listens on."""
        self._end(str(error))

    @abc.abstractmethod
    def _received(self, data: bytes) -> None:
        """Raises ProtocolError."""

    def _put(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.sendto(data)

    def _shut(self) -> None:
        if self._transport is not None:
            self._transport.close()
            self._transport = None
