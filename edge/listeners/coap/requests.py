"""One request on its way through the listener."""

from __future__ import annotations

from typing import Protocol

import msgspec

from edge.listeners.coap.answers import Answer
from edge.listeners.coap.datagrams import Peer
from edge.listeners.coap.exchanges import Exchange
from edge.listeners.coap.sources import Source
from protocols.coap.message import Block, Message
from protocols.coap.numbers import Kind, Option
from protocols.templates import Name


class Seal(Protocol):
    """Of a request that came protected by OSCORE."""

    @property
    def name(self) -> Name:
        """Whose security context it is."""
        ...

    @property
    def key(self) -> int:
        """The same for all that this context protects."""
        ...

    def close(self, answer: Answer) -> Answer:
        """The answer, protected."""
        ...


class Request(msgspec.Struct):
    message: Message
    """What is asked for; of a protected request, what was inside, with type, message id and token of the datagram."""
    peer: Peer
    source: Source
    exchange: Exchange
    seal: Seal | None = None
    block: Block | None = None
    """The last one of a body that came in blocks."""

    @property
    def is_confirmable(self) -> bool:
        return self.message.kind == Kind.CONFIRMABLE

    def wants(self, answer: Answer) -> bool:
        """Whether the device wants to hear it (No-Response, RFC 7967)."""
        unwanted = self.message.number(Option.NO_RESPONSE) or 0
        return not unwanted & 1 << (answer.code >> 5) - 1

    def reply(self, answer: Answer, message_id: int) -> Message:
        """`message_id`: a new one, for an answer that is no acknowledgement."""
        asked = self.message
        if self.is_confirmable:
            return Message(
                Kind.ACKNOWLEDGEMENT, answer.code, asked.message_id, asked.token, answer.options, answer.payload
            )
        return Message(Kind.NON_CONFIRMABLE, answer.code, message_id, asked.token, answer.options, answer.payload)
