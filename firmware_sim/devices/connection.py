"""One MQTT 3.1.1 connection of a simulated device: CONNECT, pings, and deadlines for every answer."""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

from firmware_sim.devices.packets import (
    CONNECT_REFUSALS,
    DISCONNECT,
    PINGREQ,
    ConnAck,
    PacketReader,
    ProtocolError,
    PubAck,
    SubAck,
    Told,
)
from firmware_sim.devices.timers import Timers


class Owner(Protocol):
    """Whose connection it is. Each call names the connection: a late word of an earlier one is to be passed over."""

    def went_up(self, connection: MqttConnection) -> None: ...

    def acknowledged(self, connection: MqttConnection, packet_ids: list[int]) -> None:
        """All PUBACKs of one read."""
        ...

    def told(self, connection: MqttConnection, told: Told) -> None:
        """A message came, on a topic that it subscribed to."""
        ...

    def waits_since_s(self) -> float | None:
        """When the oldest PUBLISH without an answer was sent, by the timers' clock."""
        ...

    def went_down(self, connection: MqttConnection, reason: str, *, refused: bool) -> None:
        """Once for each connection. `refused`: the server said no, or broke the standard."""
        ...


class MqttConnection(asyncio.Protocol):
    """From TCP's handshake to its end; never used again."""

    def __init__(
        self,
        owner: Owner,
        connect: bytes,
        *,
        keep_alive_s: float,
        answer_s: float,
        timers: Timers,
        subscribes: bool = False,
    ) -> None:
        """`connect`: the CONNECT packet. `answer_s`: whatever takes longer to be answered means that the connection is
        dead, whatever TCP says."""
        self._owner = owner
        self._connect = connect
        self._keep_alive_s = keep_alive_s
        self._answer_s = answer_s
        self._timers = timers
        self._transport: asyncio.Transport | None = None
        self._reader = PacketReader(subscribes=subscribes)
        self._abandoned = False
        self._refused = False
        self._reason = "the server closed the connection"
        self._asked_s: float | None = None
        """When the CONNECT or PINGREQ was sent that has no answer yet."""
        self._wrote_s = 0.0
        self.is_up = False
        self.up_since_s = 0.0

    @property
    def is_congested(self) -> bool:
        """True while written bytes wait for TCP to take them."""
        return self._transport is not None and self._transport.get_write_buffer_size() > 0

    def write(self, packets: bytes) -> None:
        if self._transport is not None:
            self._wrote_s = self._timers.now()
            self._transport.write(packets)

    def close(self) -> None:
        """Says goodbye (3.14) and ends the connection."""
        self._abandoned = True
        if self._transport is not None:
            if self.is_up:
                self._transport.write(DISCONNECT)
            self._transport.close()

    def abort(self, reason: str) -> None:
        """Ends it at once, as a device without power does; a connection still being set up ends when it stands."""
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
        self.write(self._connect)
        self._asked_s = self._wrote_s
        self._watch()

    def data_received(self, data: bytes) -> None:
        try:
            packets = self._reader.feed(data)
        except ProtocolError as error:
            self._refuse(str(error))
            return
        acknowledged: list[int] = []
        for packet in packets:
            if type(packet) is PubAck:
                acknowledged.append(packet.packet_id)
                continue
            if type(packet) is Told:
                self._owner.told(self, packet)
                continue
            self._asked_s = None
            if type(packet) is SubAck and not packet.is_granted:
                self._refuse("the subscription to commands was refused")
            if type(packet) is ConnAck:
                self._begin(packet)
        if acknowledged:
            self._owner.acknowledged(self, acknowledged)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._abandoned = True
        self.is_up = False
        self._owner.went_down(self, self._reason if error is None else str(error), refused=self._refused)

    def _begin(self, answer: ConnAck) -> None:
        if self.is_up:
            self._refuse("a second CONNACK")
        elif answer.return_code:
            self._refuse(CONNECT_REFUSALS.get(answer.return_code, f"refused with code {answer.return_code}"))
        else:
            self.is_up = True
            self.up_since_s = self._timers.now()
            self._owner.went_up(self)

    def _refuse(self, reason: str) -> None:
        self._refused = True
        self.abort(reason)

    def _watch(self) -> None:
        """Every now and then, while it lives: are answers due, is a ping?"""
        if self._abandoned or self._transport is None:
            return
        now_s = self._timers.now()
        since = [at for at in (self._asked_s, self._owner.waits_since_s()) if at is not None]
        if since and now_s - min(since) > self._answer_s:
            self.abort(f"no answer within {self._answer_s:g} s")
            return
        if self.is_up and self._asked_s is None and now_s - self._wrote_s >= self._keep_alive_s / 2:
            self.write(PINGREQ)
            self._asked_s = now_s
        self._timers.after(min(self._keep_alive_s, self._answer_s) / 4, self._watch)
