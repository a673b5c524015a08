"""SLIP (RFC 1055): END before and after, END and ESC within escaped by two bytes.

END (C0), payload with C0 as DB DC and DB as DB DD, END
"""

from __future__ import annotations

from typing import Final

from protocols.framing.base import check_size
from protocols.framing.checksum import Checksum
from protocols.framing.delimited import DelimitedDecoder

END: Final = b"\xc0"
ESC: Final = b"\xdb"
ESC_END: Final = b"\xdb\xdc"
ESC_ESC: Final = b"\xdb\xdd"


class SlipFraming:
    def __init__(self, frame_bytes_max: int, checksum: Checksum | None = None) -> None:
        self._bytes_max = frame_bytes_max
        self._checksum = checksum

    def decoder(self) -> SlipDecoder:
        return SlipDecoder(self._bytes_max, self._checksum)

    def encode(self, payload: bytes) -> bytes:
        check_size(payload, self._bytes_max)
        body = payload if self._checksum is None else payload + self._checksum.of(payload)
        return END + body.replace(ESC, ESC_ESC).replace(END, ESC_END) + END


class SlipDecoder(DelimitedDecoder):
    def __init__(self, frame_bytes_max: int, checksum: Checksum | None) -> None:
        super().__init__(END, frame_bytes_max, 2 * (frame_bytes_max + (0 if checksum is None else checksum.size)))
        self._checksum = checksum

    def _open(self, parts: list[bytes]) -> list[bytes]:
        frames = []
        for part in parts:
            payload: bytes | None = part
            if ESC in part:
                if part.count(ESC) != part.count(ESC_END) + part.count(ESC_ESC):
                    self._reject("escape", "ESC is followed by what RFC 1055 does not allow", part)
                    continue
                payload = part.replace(ESC_END, END).replace(ESC_ESC, ESC)
            if payload and self._checksum is not None:
                payload = self._checksum.opened(payload, self._reject)
            if payload:
                if len(payload) > self.frame_bytes_max:
                    self._reject_long(part)
                else:
                    frames.append(payload)
        return frames
