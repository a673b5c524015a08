"""Frames of one size, one behind the other. What was lost of one shifts all that follow, until the line is idle."""

from __future__ import annotations

from protocols.framing.base import Decoder, FrameError
from protocols.framing.checksum import Checksum


class FixedFraming:
    def __init__(self, size: int, checksum: Checksum | None = None) -> None:
        """`size`: of the payload, in bytes."""
        self._size = size
        self._checksum = checksum

    def decoder(self) -> FixedDecoder:
        return FixedDecoder(self._size, self._checksum)

    def encode(self, payload: bytes) -> bytes:
        if len(payload) != self._size:
            raise FrameError(f"{len(payload):,} bytes; each frame has {self._size:,}")
        return payload if self._checksum is None else payload + self._checksum.of(payload)


class FixedDecoder(Decoder):
    def __init__(self, size: int, checksum: Checksum | None) -> None:
        super().__init__(size)
        self._size = size + (0 if checksum is None else checksum.size)
        self._checksum = checksum

    def receive(self, data: bytes) -> list[bytes]:
        size, buffer = self._size, self._buffer
        if buffer:
            buffer += data
            if len(buffer) < size:
                return []
            data = bytes(buffer)
            buffer.clear()
        end = len(data) - len(data) % size
        buffer += data[end:]
        frames = [data[at : at + size] for at in range(0, end, size)]
        if self._checksum is not None:
            return [payload for frame in frames if (payload := self._checksum.opened(frame, self._reject))]
        return frames
