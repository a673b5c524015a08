"""What all framings have in common: bytes of a stream to frames, and a frame to bytes. Pure: no socket, no clock."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final, Protocol

import msgspec

KEPT_BYTES_MAX: Final = 1024
"""Of what is rejected: enough to see what is wrong with it."""

REJECTS_KEPT_MAX: Final = 16
"""Between two looks at them; the rest is counted. A read full of noise must not cost more than one full of frames."""


class FrameReject(msgspec.Struct, frozen=True):
    """Bytes that are no frame."""

    code: str
    """`oversize`, `checksum`, `escape`, `length`, `noise` or `half_frame`: counted by it."""
    detail: str
    data: bytes
    """As they came, the first KEPT_BYTES_MAX."""


class FrameError(ValueError):
    """A payload that the framing cannot carry: too long, or with bytes in it that end a frame."""


class Decoder(ABC):
    """One stream's. Frames come out the same however the stream is cut into reads; what it holds is bounded by the
    largest frame. A frame without payload is a sign of life and no message: it is passed over."""

    def __init__(self, frame_bytes_max: int) -> None:
        self.frame_bytes_max = frame_bytes_max
        self.is_lost = False
        """Where frames begin is not known any more, until `idle`. Nothing but a new connection or a silence helps."""
        self._buffer = bytearray()
        self._rejects: list[FrameReject] = []
        self._more: dict[str, int] = {}

    @abstractmethod
    def receive(self, data: bytes) -> list[bytes]:
        """The payloads of the frames that are complete now."""

    def idle(self) -> list[bytes]:
        """The line was silent for the gap: what is half there is given up, and what comes next begins a frame."""
        self.end()
        self.is_lost = False
        return []

    def end(self) -> None:
        """Nothing more comes: what is half there is rejected."""
        if self._buffer:
            self._reject("half_frame", f"{len(self._buffer):,} bytes of a frame, and then nothing", self._buffer)
            self._buffer.clear()

    @property
    def held_bytes(self) -> int:
        """Of a frame that is not complete."""
        return len(self._buffer)

    def take_rejects(self) -> tuple[list[FrameReject], dict[str, int]]:
        """What was rejected since the last call: the first ones, and how many more of each code."""
        taken = self._rejects, self._more
        if self._rejects:
            self._rejects, self._more = [], {}
        return taken

    def _reject(self, code: str, detail: str, data: bytes | bytearray) -> None:
        if len(self._rejects) < REJECTS_KEPT_MAX:
            self._rejects.append(FrameReject(code, detail, bytes(data[:KEPT_BYTES_MAX])))
        else:
            self._more[code] = self._more.get(code, 0) + 1

    def _reject_long(self, data: bytes | bytearray) -> None:
        self._reject("oversize", f"a frame of more than {self.frame_bytes_max:,} bytes", data)


class Framing(Protocol):
    """How frames are marked on the line; knows no stream."""

    def decoder(self) -> Decoder: ...

    def encode(self, payload: bytes) -> bytes:
        """The frame. Raises FrameError."""
        ...


def check_size(payload: bytes, frame_bytes_max: int) -> None:
    """Raises FrameError."""
    if not payload:
        raise FrameError("a frame without payload is none")
    if len(payload) > frame_bytes_max:
        raise FrameError(f"{len(payload):,} bytes; a frame has at most {frame_bytes_max:,}")
