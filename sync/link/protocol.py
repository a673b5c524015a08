"""What both ends of the link have in common: frames in, events and frames out, no I/O. Time comes as an argument.

    end.receive(data, …)    what the other end says; returns events for the owner, raises LinkError to end it all
    end.take_outgoing()     frames to send, in order; empty it after every call
    end.tick(now_s)         lets time pass; returns when to call again, raises LateError where a deadline is missed

`now_s` is a monotonic clock in seconds, the same for all calls. After a LinkError the end is of no further use. The two
ends are GatewayEnd (gateway_end.py) and CloudEnd (cloud_end.py).
"""

from __future__ import annotations

from typing import Final

import msgspec

from protocols.errors import WireError
from protocols.messages import Command, Lane
from sync.link.errors import FarewellError, ViolationError
from sync.link.frames import (
    CommandProgress,
    Frame,
    Goodbye,
    Hello,
    RegistryAsk,
    Span,
    Welcome,
    decode_frame,
    encode_frame,
)
from sync.link.limits import RETRY_AFTER_S_MAX, TEXT_BYTES_MAX, Deadlines
from sync.registry import RegistryChange

CHECKSUM: Final = "checksum"
"""Code of REFUSED: the block came damaged."""


class BlockRefused(msgspec.Struct, frozen=True):
    """Event at the gateway: the cloud did not take these records; they count as not sent."""

    span: Span
    code: str
    text: str


class Shipped(msgspec.Struct, frozen=True):
    """Event in the cloud: blocks as they stand in the gateway's log, not checked yet. Each is to be answered."""

    request: int
    lane: Lane
    blocks: list[bytes]


GatewayEvent = Welcome | Span | BlockRefused | RegistryChange | Command
"""A Span was accepted; a Command is to be carried out."""
CloudEvent = Hello | Shipped | RegistryAsk | CommandProgress


class End:
    """What both ends have in common."""

    def __init__(self, deadlines: Deadlines) -> None:
        self.deadlines = deadlines
        self.frames_unknown = 0
        """Frames of a newer version that were passed over."""
        self._outgoing: list[bytes] = []

    def take_outgoing(self) -> list[bytes]:
        frames, self._outgoing = self._outgoing, []
        return frames

    def goodbye(self, code: str, text: str, retry_after_s: float = 0.0) -> None:
        self.put(Goodbye(code, clip(text), int(retry_after_s * 1000)))

    def put(self, frame: Frame) -> None:
        self._outgoing.append(encode_frame(frame))

    def read(self, data: bytes) -> Frame | None:
        try:
            frame = decode_frame(data)
        except WireError as error:
            raise ViolationError(error.code, error.detail) from None
        if isinstance(frame, Goodbye):
            retry_after_s = min(frame.retry_after_ms / 1000, RETRY_AFTER_S_MAX)
            raise FarewellError(frame.code, clip(frame.text), retry_after_s)
        if frame is None:
            self.frames_unknown += 1
        return frame


def clip(text: str) -> str:
    return text.encode()[:TEXT_BYTES_MAX].decode(errors="ignore")
