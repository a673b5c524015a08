"""Consistent Overhead Byte Stuffing (Cheshire and Baker, IEEE/ACM Transactions on Networking 7 (2), 1999).

    code, code − 1 bytes without a zero, code, …, 0

A zero follows each block of the payload that is not the last, unless its code is 255. No byte of a frame is zero, so
that a zero ends it, and that costs one byte in 254.
"""

from __future__ import annotations

from typing import Final

from protocols.framing.base import check_size
from protocols.framing.checksum import Checksum
from protocols.framing.delimited import DelimitedDecoder

_BLOCK: Final = 254


class CobsFraming:
    def __init__(self, frame_bytes_max: int, checksum: Checksum | None = None) -> None:
        self._bytes_max = frame_bytes_max
        self._checksum = checksum

    def decoder(self) -> CobsDecoder:
        return CobsDecoder(self._bytes_max, self._checksum)

    def encode(self, payload: bytes) -> bytes:
        check_size(payload, self._bytes_max)
        return stuffed(payload if self._checksum is None else payload + self._checksum.of(payload)) + b"\0"


class CobsDecoder(DelimitedDecoder):
    def __init__(self, frame_bytes_max: int, checksum: Checksum | None) -> None:
        size = frame_bytes_max + (0 if checksum is None else checksum.size)
        super().__init__(b"\0", frame_bytes_max, size + size // _BLOCK + 1)
        self._checksum = checksum

    def _open(self, parts: list[bytes]) -> list[bytes]:
        frames = []
        for part in parts:
            if not part:
                continue
            payload = unstuffed(part)
            if payload is None:
                self._reject("length", "a COBS block is longer than its frame", part)
                continue
            if self._checksum is not None:
                payload = self._checksum.opened(payload, self._reject)
            if payload:
                if len(payload) > self.frame_bytes_max:
                    self._reject_long(part)
                else:
                    frames.append(payload)
        return frames


def stuffed(payload: bytes) -> bytes:
    """Without the zero that ends the frame."""
    out = bytearray()
    for block in payload.split(b"\0"):
        whole = len(block) - len(block) % _BLOCK
        for at in range(0, whole, _BLOCK):
            out.append(255)
            out += block[at : at + _BLOCK]
        out.append(len(block) - whole + 1)
        out += block[whole:]
    return bytes(out)


def unstuffed(frame: bytes) -> bytes | None:
    """None: the frame ends within a block."""
    blocks = []
    at, end = 0, len(frame)
    while at < end:
        code = frame[at]
        last = at + code
        if last > end:
            return None
        blocks.append(frame[at + 1 : last])
        if code < 255 and last < end:
            blocks.append(b"\0")
        at = last
    return b"".join(blocks)
