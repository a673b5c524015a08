"""Frames with nothing between them but silence: what comes without a pause is one (Modbus RTU and its like)."""

from __future__ import annotations

from protocols.framing.base import Decoder, check_size
from protocols.framing.checksum import Checksum


class GapFraming:
    def __init__(self, frame_bytes_max: int, checksum: Checksum | None = None) -> None:
        self._bytes_max = frame_bytes_max
        self._checksum = checksum

    def decoder(self) -> GapDecoder:
        return GapDecoder(self._bytes_max, self._checksum)

    def encode(self, payload: bytes) -> bytes:
        check_size(payload, self._bytes_max)
        return payload if self._checksum is None else payload + self._checksum.of(payload)


class GapDecoder(Decoder):
    def __init__(self, frame_bytes_max: int, checksum: Checksum | None) -> None:
        super().__init__(frame_bytes_max)
        self._raw_max = frame_bytes_max + (0 if checksum is None else checksum.size)
        self._checksum = checksum

    def receive(self, data: bytes) -> list[bytes]:
        if not self.is_lost:
            self._buffer += data
            if len(self._buffer) > self._raw_max:
                self.is_lost = True
                self._reject_long(self._buffer)
                self._buffer.clear()
        return []

    def idle(self) -> list[bytes]:
        self.is_lost = False
        frame = bytes(self._buffer)
        self._buffer.clear()
        if frame and self._checksum is not None:
            frame = self._checksum.opened(frame, self._reject) or b""
        return [frame] if frame else []
