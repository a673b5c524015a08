"""Lines: payload, then a delimiter, a line feed unless it is said otherwise.

payload … LF        a carriage return before the line feed is part of the delimiter
"""

from __future__ import annotations

from protocols.framing.base import FrameError, check_size
from protocols.framing.checksum import Checksum
from protocols.framing.delimited import DelimitedDecoder

LF = b"\n"


class LineFraming:
    def __init__(self, frame_bytes_max: int, delimiter: bytes = LF, checksum: Checksum | None = None) -> None:
        self._bytes_max = frame_bytes_max
        self._delimiter = delimiter
        self._checksum = checksum

    def decoder(self) -> LineDecoder:
        return LineDecoder(self._delimiter, self._bytes_max, self._checksum)

    def encode(self, payload: bytes) -> bytes:
        check_size(payload, self._bytes_max)
        body = payload if self._checksum is None else payload + self._checksum.of(payload)
        if self._delimiter in body + self._delimiter[:-1]:
            raise FrameError(f"the payload holds the delimiter {self._delimiter!r}")
        if self._delimiter == LF and body.endswith(b"\r"):
            raise FrameError("the payload ends with a carriage return, which would be taken for the line's end")
        return body + self._delimiter


class LineDecoder(DelimitedDecoder):
    def __init__(self, delimiter: bytes, frame_bytes_max: int, checksum: Checksum | None) -> None:
        size = 0 if checksum is None else checksum.size
        self._takes_return = delimiter == LF
        super().__init__(delimiter, frame_bytes_max, frame_bytes_max + size + self._takes_return)
        self._checksum = checksum

    def _open(self, parts: list[bytes]) -> list[bytes]:
        if self._takes_return:
            parts = [part[:-1] if part.endswith(b"\r") else part for part in parts]
        if self._checksum is not None:
            parts = [payload for part in parts if part and (payload := self._checksum.opened(part, self._reject))]
        if parts and len(max(parts, key=len)) > self.frame_bytes_max:
            for part in parts:
                if len(part) > self.frame_bytes_max:
                    self._reject_long(part)
            return [part for part in parts if 0 < len(part) <= self.frame_bytes_max]
        return parts if all(parts) else list(filter(None, parts))
