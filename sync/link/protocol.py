"""What both ends of the link have in common: frames in, events and frames out, no I/O. Time comes as an argument.

    end.receive(data, …)    what the other end says; returns events for the owner, raises LinkError to end it all
    end.take_outgoing()     frames to send, in order; empty it after every call
    end.tick(now_s)         lets time pass; returns when to call again, raises LateError where a deadline is missed

`now_s` is a monotonic clock in seconds, the same for all calls. After a LinkError the end is of no further use. The two
ends are GatewayEnd (gateway_end.py) and CloudEnd (cloud_end.py).
"""

from __future__ import annotations

from collections import deque
from typing import Final

import msgspec

from protocols.errors import WireError
from protocols.messages import Command, Lane
from sync.link.errors import FarewellError, ViolationError
from sync.link.frames import (
    Anchors,
    CommandKept,
    CommandProgress,
    Configuration,
    ConfigurationResult,
    Frame,
    Gaps,
    Goodbye,
    Hello,
    Holdings,
    ProbeAnswer,
    RegistryAsk,
    Resend,
    Span,
    Standing,
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


class Kept(msgspec.Struct, frozen=True):
    """Event at the gateway: the cloud has these anchors or gaps on its books, and of the gaps' records has `has`."""

    told: Anchors | Gaps
    has: tuple[Span, ...] = ()


class Shipped(msgspec.Struct, frozen=True):
    """Event in the cloud: blocks as they stand in the gateway's log, not checked yet. Each is to be answered."""

    request: int
    lane: Lane
    blocks: list[bytes]


GatewayEvent = (
    Welcome | Span | BlockRefused | RegistryChange | Command | CommandKept | Kept | Resend | ProbeAnswer | Configuration
)
"""A Span was accepted; a Command is to be carried out."""
Told = Anchors | Gaps | Standing | Holdings
CloudEvent = Hello | Shipped | RegistryAsk | CommandProgress | ConfigurationResult | Told


class Awaited:
    """A frame whose answer has not come."""

    __slots__ = ("sent_s", "written_s")

    def __init__(self, sent_s: float) -> None:
        self.sent_s = sent_s
        self.written_s: float | None = None
        """When all of it had gone out; None: not yet, or nobody says."""


class End:
    """What both ends have in common."""

    def __init__(self, deadlines: Deadlines, now_s: float) -> None:
        self.deadlines = deadlines
        self.frames_unknown = 0
        """Frames of a newer version that were passed over."""
        self._outgoing: deque[tuple[bytes, Awaited | None]] = deque()
        self._writing: Awaited | None = None
        self._moved_s = now_s

    @property
    def has_outgoing(self) -> bool:
        return bool(self._outgoing)

    def take_outgoing(self) -> list[bytes]:
        """All that is to be sent."""
        frames = [frame for frame, _ in self._outgoing]
        self._outgoing.clear()
        return frames

    def next_outgoing(self) -> bytes:
        """The next frame to be sent, for an owner that says by `moved` how it goes out. There has to be one."""
        frame, self._writing = self._outgoing.popleft()
        return frame

    def moved(self, now_s: float, *, written: bool) -> None:
        """The frame taken last gets on, or all of it has gone out: the time for its answer begins then. On a thin link
        that takes a while, and nobody can answer sooner."""
        self._moved_s = now_s
        if written and self._writing is not None:
            self._writing.written_s = now_s

    def due_s(self, awaited: Awaited, wait_s: float) -> float:
        """When its answer is missed."""
        if awaited.written_s is not None:
            return awaited.written_s + wait_s
        return max(awaited.sent_s, self._moved_s) + wait_s

    def goodbye(self, code: str, text: str, retry_after_s: float = 0.0) -> None:
        self.put(Goodbye(code, clip(text), int(retry_after_s * 1000)))

    def put(self, frame: Frame, awaited: Awaited | None = None) -> None:
        """`awaited`, where the frame is to be answered."""
        self._outgoing.append((encode_frame(frame), awaited))

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
