"""Frames between a start and a stop, with a checksum before the stop.

    start, payload, checksum, stop

With an escape byte, what is start, stop or escape within is sent as escape, byte XOR 0x20. Start and stop may then be
the same byte, and one may end a frame and begin the next (HDLC). Without an escape the payload must not hold the stop.
"""

from __future__ import annotations

from typing import Final

from protocols.framing.base import KEPT_BYTES_MAX, Decoder, FrameError, check_size
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
    the start of another; what is too long, up to one that is not, is told once."""

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
        self._left: int | None = None
        """How many bytes before the next stop may still be checked; None: none was in vain."""
        self._looked = 0
        """No stop begins in the buffer between its first start and here."""
        self._stop_at = -1
        """The first stop from there on, where one was seen."""
        self._is_long = False
        self._noise = bytearray()
        self._noise_bytes = 0

    def receive(self, data: bytes) -> list[bytes]:
        self._buffer += data
        buffer = bytes(self._buffer)
        frames: list[bytes] = []
        at = self._next(buffer, 0)
        while at < len(buffer) and buffer.startswith(self._start, at):
            next_at = self._frame(buffer, at, frames)
            if next_at == at:
                break
            at = self._next(buffer, next_at)
        del self._buffer[:at]
        self._looked = max(0, self._looked - at)
        self._stop_at = max(-1, self._stop_at - at)
        return frames

    def end(self) -> None:
        if len(self._buffer) > len(self._start) or self._start != self._stop:
            super().end()
        self._buffer.clear()
        self._looked, self._stop_at, self._left, self._is_long = 0, -1, None, False
        self._tell_noise()

    def _next(self, buffer: bytes, at: int) -> int:
        """Where the next frame may begin: at a start, or where one is cut off by the end."""
        begin = buffer.find(self._start, at)
        is_there = begin >= 0
        if not is_there:
            begin = len(buffer)
            for cut in range(min(len(self._start) - 1, len(buffer) - at), 0, -1):
                if buffer.endswith(self._start[:cut]):
                    begin -= cut
                    break
        if begin > at and not self._is_long:
            self._add_noise(buffer[at:begin])
        if is_there:
            self._tell_noise()
        return begin

    def _frame(self, buffer: bytes, at: int, frames: list[bytes]) -> int:
        """Behind the frame that begins at `at`; `at` itself where more is needed to know."""
        begin = at + len(self._start)
        stop = self._first_stop(buffer, begin)
        reach = self._body_max + self._beyond
        seen = self._looked if stop < 0 else stop
        if seen - begin > reach:
            if not self._is_long:
                self._is_long = True
                self._reject_long(buffer[at : at + KEPT_BYTES_MAX])
            return max(at + 1, seen - reach - len(self._start))
        if stop < 0:
            return at
        if stop > begin:
            return self._tried(buffer, at, stop, frames)
        self._is_long = False
        return stop if self._start == self._stop else stop + len(self._stop)

    def _first_stop(self, buffer: bytes, begin: int) -> int:
        """The first one from there on; -1: there is none yet, up to `_looked`."""
        if not 0 <= begin <= self._stop_at:
            self._stop_at = buffer.find(self._stop, max(begin, self._looked if self._stop_at < 0 else begin))
            self._looked = max(begin, len(buffer) - len(self._stop) + 1) if self._stop_at < 0 else self._stop_at
        return self._stop_at

    def _tried(self, buffer: bytes, at: int, stop: int, frames: list[bytes]) -> int:
        """The same, where there is a stop in reach."""
        begin = at + len(self._start)
        behind = 0 if self._start == self._stop else len(self._stop)
        if self._left is not None and self._left < stop - begin:
            self._left = None
            return stop + behind
        last = stop + self._beyond
        end, payload = stop, self._payload(buffer[begin:stop])
        while payload is None and 0 <= (end := buffer.find(self._stop, end + 1)) <= last:
            payload = self._payload(buffer[begin:end])
        if payload is None and self._beyond and len(buffer) < last + len(self._stop):
            return at
        self._is_long = False
        if payload is not None and len(payload) <= self.frame_bytes_max:
            self._left = None
            frames.append(payload)
            return end + behind
        self._refuse(buffer[at : min(stop + len(self._stop), at + KEPT_BYTES_MAX)], payload)
        again = buffer.find(self._start, at + 1, stop + behind)
        if 0 <= again < stop:
            self._left = (_in_vain_max(stop - begin) if self._left is None else self._left) - (stop - begin)
        else:
            self._left = None
        return stop + behind if again < 0 else again

    def _payload(self, body: bytes) -> bytes | None:
        if self._escapes and body.count(self._escapes[0][0]) != sum(body.count(sent) for _, sent in self._escapes):
            return None
        for byte, sent in reversed(self._escapes):
            body = body.replace(sent, byte)
        if self._checksum is None:
            return body
        payload = body[: -self._checksum.size]
        return payload if payload and self._checksum.of(payload) == body[-self._checksum.size :] else None

    def _refuse(self, frame: bytes, payload: bytes | None) -> None:
        if payload is not None:
            self._reject_long(frame)
        elif self._checksum is None:
            self._reject("escape", "the escape stands before what it never does", frame)
        else:
            self._reject("checksum", f"{self._checksum.name} does not fit the bytes before it", frame)

    def _add_noise(self, data: bytes) -> None:
        """Of a line that carries nothing else, a whole is so much."""
        unit = max(self.frame_bytes_max, KEPT_BYTES_MAX)
        at = 0
        while at < len(data):
            part = data[at : at + unit - self._noise_bytes]
            self._noise += part[: KEPT_BYTES_MAX - len(self._noise)]
            self._noise_bytes += len(part)
            at += len(part)
            if self._noise_bytes == unit:
                self._tell_noise()

    def _tell_noise(self) -> None:
        if self._noise_bytes:
            self._reject("noise", f"{self._noise_bytes:,} bytes between frames", self._noise)
            self._noise.clear()
            self._noise_bytes = 0


def _in_vain_max(size: int) -> int:
    """Bytes that may be checked up to one stop, from several starts, where the first of them is `size` bytes before it:
    who sends nothing but starts would have each of them checked, minutes of work for 64 kB."""
    return 5 * size + KEPT_BYTES_MAX
