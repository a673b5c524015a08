"""CoAP: a confirmable POST for each message, whose 2.04 is the acknowledgement; commands by Observe."""

from __future__ import annotations

from typing import Final

import msgspec

from firmware_sim.devices.carriers.carrier import Owner
from firmware_sim.devices.carriers.datagrams import DatagramCarrier
from firmware_sim.devices.carriers.http import resource
from firmware_sim.devices.carriers.turns import Item
from firmware_sim.devices.coap_packets import (
    ACK,
    ACK_RANDOM_FACTOR,
    ACK_TIMEOUT_S,
    CHANGED,
    CON,
    CONTENT,
    CONTENT_FORMAT,
    CREATED,
    GET,
    JSON,
    MAX_RETRANSMIT,
    OBSERVE,
    POST,
    RST,
    URI_PATH,
    URI_QUERY,
    Packet,
    decode,
    encode,
)
from firmware_sim.devices.lines import ordered
from firmware_sim.devices.orders import Answer
from firmware_sim.devices.outbox import Outgoing
from firmware_sim.devices.packets import ProtocolError
from firmware_sim.devices.roster import RosterDevice
from firmware_sim.devices.surroundings import DeviceSettings, Runtime

TOKEN_BYTES: Final = 4
BLOCK2: Final = 23
_MORE: Final = 8
"""Of a block: others follow."""


class Observation(msgspec.Struct, frozen=True):
    """The request for commands, in its turn."""

    packet_id: int = 0


class CoapCarrier(DatagramCarrier):
    usual_port = 5683

    def __init__(self, owner: Owner, identity: RosterDevice, settings: DeviceSettings, runtime: Runtime) -> None:
        super().__init__(owner, identity, settings, runtime)
        path = resource(identity).strip("/").split("/")
        self._path = tuple(part.encode() for part in path)
        self._base = self._path[:-1] if path[-1] == "up" else self._path
        key = f"key={identity.password}".encode()
        self._query = ((URI_QUERY, key),) if identity.password else ()
        # Anywhere: a server remembers the ids of whoever had this port before.
        self._message_id = runtime.rng.randrange(1 << 16)
        self._token = b""
        """Of what is under way."""
        self._observed = b""
        """Token of the observation; empty: there is none."""

    def listen(self) -> None:
        self._queue.append(Observation())
        self._next()

    def _transmit(self, item: Item) -> None:
        self._message_id = self._message_id + 1 & 0xFFFF
        self._token = self._runtime.rng.randbytes(TOKEN_BYTES)
        timeout_s = ACK_TIMEOUT_S * self._runtime.rng.uniform(1.0, ACK_RANDOM_FACTOR)
        self._put_and_wait(item, encode(self._request(item)), timeout_s, MAX_RETRANSMIT)

    def _request(self, item: Item) -> Packet:
        if isinstance(item, Observation):
            self._observed = self._token
            path, more = (*self._base, b"down"), ((OBSERVE, b""),)
            options = (*more, *((URI_PATH, part) for part in path), *self._query)
            return Packet(CON, GET, self._message_id, self._token, options)
        if isinstance(item, Answer):
            path = (*self._base, b"response", item.command_id.encode())
            payload = msgspec.json.encode(item.body)
        else:
            assert isinstance(item, Outgoing)
            path, payload = self._path, item.payload
        options = (*((URI_PATH, part) for part in path), (CONTENT_FORMAT, JSON), *self._query)
        return Packet(CON, POST, self._message_id, self._token, options, payload)

    def _put_and_wait(self, item: Item, data: bytes, timeout_s: float, tries: int) -> None:
        self._put(data)

        def look() -> None:
            if self._under_way is not item or self._has_ended:
                return
            if not tries:
                self._end("no answer to a confirmable message")
                return
            if isinstance(item, Outgoing):
                self._owner.sent_again(self, item)
            self._put_and_wait(item, data, 2 * timeout_s, tries - 1)

        self._timers.after(timeout_s, look)

    def _received(self, data: bytes) -> None:
        packet = decode(data)
        if packet.kind == CON:
            self._notified(packet)
        elif packet.message_id != self._message_id or self._under_way is None:
            return  # of a message that has its answer
        elif packet.kind == RST:
            raise ProtocolError("the message was reset")
        elif packet.kind == ACK and packet.code and packet.token == self._token:
            if packet.code not in (CHANGED, CREATED, CONTENT):
                raise ProtocolError(packet.says)
            self._done()

    def _notified(self, packet: Packet) -> None:
        """Of a command."""
        in_blocks = any(number == BLOCK2 and value and value[-1] & _MORE for number, value in packet.options)
        if not self._observed or packet.token != self._observed or in_blocks:
            self._put(encode(Packet(RST, 0, packet.message_id, b"")))
            return
        answer = None
        if packet.payload:
            order = ordered(packet.payload)
            answer = self._owner.told(self, order.command, order.id)
        self._put(encode(Packet(ACK, 0, packet.message_id, b"")))
        if answer is not None:
            self.answer(answer)
