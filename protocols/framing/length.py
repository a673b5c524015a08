"""Frames with their length before them.

length (1, 2 or 4 bytes, either byte order), payload        the length may count itself
"""

from __future__ import annotations

from protocols.framing.base import Decoder, check_size
from protocols.framing.checksum import Checksum
from protocols.framing.words import ByteOrder


class LengthFraming:
    def __init__(
        self,
        frame_bytes_max: int,
        length_bytes: int = 2,
        byte_order: ByteOrder = "big",
        *,
        counts_itself: bool = False,
        checksum: Checksum | None = None,
    ) -> None:
        self.frame_bytes_max = frame_bytes_max
        self.length_bytes = length_bytes
        self.byte_order: ByteOrder = byte_order
        self.added = length_bytes if counts_itself else 0
        self.checksum = checksum
        room = (1 << 8 * length_bytes) - 1 - self.added - (0 if checksum is None else checksum.size)
        self.frame_bytes_max = min(frame_bytes_max, room)

    def decoder(self) -> LengthDecoder:
        return LengthDecoder(self)

    def encode(self, payload: bytes) -> bytes:
        check_size(payload, self.frame_bytes_max)
        body = payload if self.checksum is None else payload + self.checksum.of(payload)
        return (len(body) + self.added).to_bytes(self.length_bytes, self.byte_order) + body


class LengthDecoder(Decoder):
    """A length that cannot be means that it reads lengths where there are none: it is lost until the line is idle."""

    def __init__(self, framing: LengthFraming) -> None:
        super().__init__(framing.frame_bytes_max)
        self._head = framing.length_bytes
        self._order: ByteOrder = framing.byte_order
        self._added = framing.added
        self._checksum = framing.checksum
        self._body_max = framing.frame_bytes_max + (0 if framing.checksum is None else framing.checksum.size)
        self._wanted = self._head

    def receive(self, data: bytes) -> list[bytes]:
        if self.is_lost:
            return []
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._wanted:
                return []
            data = bytes(self._buffer)
            self._buffer.clear()
        frames = []
        head, order, added, body_max = self._head, self._order, self._added, self._body_max
        at, end, wanted = 0, len(data), head
        while end - at >= head:
            size = int.from_bytes(data[at : at + head], order) - added
            if not 0 <= size <= body_max:
                self.is_lost = True
                self._reject("length", f"a length of {size + added:,}; frames have up to {body_max:,} bytes", data[at:])
                at = end
                break
            next_at = at + head + size
            if next_at > end:
                wanted = head + size
                break
            if size:
                frames.append(data[at + head : next_at])
            at = next_at
        self._wanted = wanted
        if at < end:
            self._buffer += data[at:]
        if self._checksum is not None:
            return [payload for frame in frames if (payload := self._checksum.opened(frame, self._reject))]
        return frames

    def idle(self) -> list[bytes]:
        self._wanted = self._head
        return super().idle()
