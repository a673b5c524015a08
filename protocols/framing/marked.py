"""Frames between a start and a stop, with a checksum before the stop.

    start, payload, checksum, stop

With an escape byte, what is start, stop or escape within is sent as escape, byte XOR 0x20. Start and stop may then be
the same byte, and one may end a frame and begin the next (HDLC). Without an escape the payload must not hold the stop.
"""

from __future__ import annotations

from typing import Final

from protocols.framing.base import Decoder, FrameError, check_size
from protocols.framing.checksum import Checksum

ESCAPE_XOR: Final = 0x20
"""As PPP and HDLC have it (RFC 1662, section 4.2)."""


class MarkedFraming:
    def __init__(
        self,
        frame_bytes_max: int,
        start: bytes,
        stop: bytes,
        *,
        escape: int | None = None,
        checksum: Checksum | None = None,
    ) -> None:
        """`escape`: a byte, where start and stop have one byte each."""
        self.frame_bytes_max = frame_bytes_max
        self.start = start
        self.stop = stop
        self.checksum = checksum
        self.escapes: list[tuple[bytes, bytes]] = []
        """Byte, and how it is sent; the escape itself first."""
        if escape is not None:
            mark = bytes((escape,))
            special = dict.fromkeys((mark, start, stop))
            self.escapes = [(byte, bytes((escape, byte[0] ^ ESCAPE_XOR))) for byte in special]

    def decoder(self) -> MarkedDecoder:
        return MarkedDecoder(self)

    def encode(self, payload: bytes) -> bytes:
        check_size(payload, self.frame_bytes_max)
        body = payload if self.checksum is None else payload + self.checksum.of(payload)
        for byte, sent in self.escapes:
            body = body.replace(byte, sent)
        if not self.escapes and self.stop in payload + self.stop[:-1]:
            raise FrameError(f"the payload holds the stop {self.stop.hex()}, and there is no escape")
        return self.start + body + self.stop


class MarkedDecoder(Decoder):
    """What is between frames is noise, told as one whole as soon as it ends. A frame that is none is looked through for
    the start of another."""

    def __init__(self, framing: MarkedFraming) -> None:
        super().__init__(framing.frame_bytes_max)
        self._start = framing.start
        self._stop = framing.stop
        self._escapes = framing.escapes
        self._checksum = framing.checksum
        size = 0 if framing.checksum is None else framing.checksum.size
        self._body_max = (framing.frame_bytes_max + size) * (2 if framing.escapes else 1)
        # Without an escape, the checksum may hold the stop: then the true one comes so much later at most.
        self._beyond = 0 if framing.escapes else size
        self._looked = 0
        """How far the buffer, which begins with a start, was searched for a stop in vain."""
        self._noise = bytearray()
        self._noise_bytes = 0

    def receive(self, data: bytes) -> list[bytes]:
        self._buffer += data
        buffer = bytes(self._buffer)
        frames: list[bytes] = []
        at = self._next(buffer, 0, frames)
        while 0 <= at < len(buffer) and buffer.startswith(self._start, at):
            next_at = self._frame(buffer, at, frames)
            if next_at == at:
                break
            self._looked = 0
            at = self._next(buffer, next_at, frames)
        del self._buffer[:at]
        return frames

    def idle(self) -> list[bytes]:
        frames = super().idle()
        self._looked = 0
        return frames

    def end(self) -> None:
        if len(self._buffer) > len(self._start) or self._start != self._stop:
            super().end()
        self._buffer.clear()
        self._tell_noise()

    def _next(self, buffer: bytes, at: int, frames: list[bytes]) -> int:
        """Where the next frame may begin: at a start, or where one is cut off by the end."""
        begin = buffer.find(self._start, at)
        if begin < 0:
            begin = len(buffer)
            for cut in range(min(len(self._start) - 1, len(buffer) - at), 0, -1):
                if buffer.endswith(self._start[:cut]):
                    begin -= cut
                    break
        if begin > at:
            self._noise += buffer[at : min(begin, at + self.frame_bytes_max)]
            self._noise_bytes += begin - at
            if self._noise_bytes > self.frame_bytes_max:
                self._tell_noise()
        if begin < len(buffer) and buffer.startswith(self._start, begin):
            self._tell_noise()
        return begin

    def _frame(self, buffer: bytes, at: int, frames: list[bytes]) -> int:
        """Behind the frame that begins at `at`; `at` itself where more is needed to know."""
        begin = at + len(self._start)
        stop = buffer.find(self._stop, max(begin, at + self._looked))
        if stop < 0:
            if len(buffer) - begin <= self._body_max + self._beyond + len(self._stop):
                self._looked = max(len(self._start), len(buffer) - at - len(self._stop) + 1)
                return at
            self._reject_long(buffer[at:])
            return self._resume(buffer, at, begin + self._body_max)
        if stop == begin:
            return stop if self._start == self._stop else stop + len(self._stop)
        if stop - begin > self._body_max + self._beyond:
            self._reject_long(buffer[at:stop])
            return self._resume(buffer, at, stop)
        found, is_sure = self._opened(buffer, begin, stop, frames)
        if found:
            return found if self._start == self._stop else found + len(self._stop)
        if not is_sure:
            return at
        self._refuse(buffer[at : stop + len(self._stop)], buffer[begin:stop])
        return self._resume(buffer, at, stop if self._start == self._stop else stop + len(self._stop))

    def _opened(self, buffer: bytes, begin: int, stop: int, frames: list[bytes]) -> tuple[int, bool]:
        """Where the stop of the frame is; 0: it is none, and whether more bytes cannot make it one."""
        last = stop + self._beyond
        while 0 <= stop <= last:
            payload = self._payload(buffer[begin:stop])
            if payload is not None:
                if len(payload) > self.frame_bytes_max:
                    return 0, True
                frames.append(payload)
                return stop, True
            stop = buffer.find(self._stop, stop + 1)
        return 0, self._beyond == 0 or len(buffer) >= last + len(self._stop)

    def _payload(self, body: bytes) -> bytes | None:
        if self._escapes and body.count(self._escapes[0][0]) != sum(body.count(sent) for _, sent in self._escapes):
            return None
        for byte, sent in reversed(self._escapes):
            body = body.replace(sent, byte)
        if self._checksum is None:
            return body
        payload = body[: -self._checksum.size]
        return payload if payload and self._checksum.of(payload) == body[-self._checksum.size :] else None

    def _refuse(self, frame: bytes, body: bytes) -> None:
        if self._payload(body) is not None:
            self._reject_long(frame)
        elif self._checksum is None:
            self._reject("escape", "the escape stands before what it never does", frame)
        else:
            self._reject("checksum", f"{self._checksum.name} does not fit the bytes before it", frame)

    def _resume(self, buffer: bytes, at: int, end: int) -> int:
        """The next start within what was no frame, else its end."""
        within = buffer.find(self._start, at + 1, end)
        return within if within >= 0 else min(end, len(buffer))

    def _tell_noise(self) -> None:
        if self._noise_bytes:
            self._reject("noise", f"{self._noise_bytes:,} bytes between frames", self._noise)
            self._noise.clear()
            self._noise_bytes = 0
