"""Messages of ours that a device has to acknowledge (RFC 7252, section 4.2)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from edge.listeners.coap.datagrams import Peer
from edge.listeners.coap.exchanges import Address
from edge.listeners.coap.limits import ACK_RANDOM, ACK_S, RETRANSMITS_MAX
from edge.listeners.way import DeviceAbsentError, DeviceGoneError
from protocols.coap.numbers import Kind


class Confirmables:
    def __init__(self, send: Callable[[bytes, Peer], None], random: Callable[[], float]) -> None:
        """`random`: from 0 to 1."""
        self._send = send
        self._random = random
        self._waiting: dict[tuple[Address, int], asyncio.Future[None]] = {}

    async def confirmed(self, data: bytes, message_id: int, peer: Peer) -> None:
        """Sends until the device acknowledges it. Raises DeviceAbsentError where it resets it, as it does not listen
        (any more), and DeviceGoneError where it says nothing."""
        key = (peer.address, message_id)
        answered = self._waiting[key] = asyncio.get_running_loop().create_future()
        wait_s = ACK_S * (1 + self._random() * (ACK_RANDOM - 1))
        try:
            for _ in range(1 + RETRANSMITS_MAX):
                self._send(data, peer)
                await asyncio.wait((answered,), timeout=wait_s)
                if answered.done():
                    answered.result()
                    return
                wait_s *= 2
            raise DeviceGoneError(f"{peer.host} did not acknowledge it")
        finally:
            del self._waiting[key]
            answered.cancel()

    def heard(self, address: Address, message_id: int, kind: int) -> None:
        """An acknowledgement or a reset."""
        answered = self._waiting.get((address, message_id))
        if answered is None or answered.done():
            return
        if kind == Kind.RESET:
            answered.set_exception(DeviceAbsentError(f"{address[0]} no longer observes its commands"))
        else:
            answered.set_result(None)

    def abandon(self, address: Address, message_id: int) -> None:
        """The device is no longer where it was: nobody knows whether it has the message."""
        answered = self._waiting.get((address, message_id))
        if answered is not None and not answered.done():
            answered.set_exception(DeviceGoneError(f"{address[0]} observes anew, or no longer"))

    def end(self) -> None:
        """At close."""
        for answered in self._waiting.values():
            if not answered.done():
                answered.set_exception(DeviceGoneError("the gateway stops before the device acknowledged it"))
