"""Checksums of frames: a CRC by its catalogue name, in one byte order or the other, behind what it covers."""

from __future__ import annotations

import binascii
import zlib
from collections.abc import Callable
from functools import cache
from typing import Final

from protocols.framing.base import KEPT_BYTES_MAX
from protocols.framing.crc_catalog import CATALOG, Crc
from protocols.framing.words import ByteOrder

Reject = Callable[[str, str, bytes], None]
"""Takes code, detail and bytes."""

_HQX_POLY: Final = 0x1021
_ZLIB_POLY: Final = 0x04C11DB7


class Checksum:
    """One CRC, as it stands behind a frame's payload."""

    def __init__(self, name: str, byte_order: ByteOrder | None = None) -> None:
        """`byte_order` None: as is usual, the low byte first where the CRC takes bits from the low end. KeyError for a
        name that is not in the catalogue."""
        crc = CATALOG[name]
        self.name = name
        self.size = crc.width // 8
        self._order: ByteOrder = byte_order or ("little" if crc.is_reflected else "big")
        self._compute = computer(name)

    def of(self, data: bytes) -> bytes:
        """As it stands on the line."""
        return self._compute(data).to_bytes(self.size, self._order)

    def opened(self, frame: bytes, reject: Reject) -> bytes | None:
        """The payload, without the checksum at its end; None where it is another, of which `reject` is told."""
        payload = frame[: -self.size]
        if len(frame) > self.size and frame[-self.size :] == self.of(payload):
            return payload
        found, expected = frame[-self.size :].hex(), self.of(payload).hex()
        reject("checksum", f"{self.name} is {found}, and {expected} by the bytes before it", frame[:KEPT_BYTES_MAX])
        return None


@cache
def computer(name: str) -> Callable[[bytes], int]:
    """The function that computes it, by the standard library where that has it."""
    crc = CATALOG[name]
    final = crc.xor_out
    if crc.width == 16 and crc.poly == _HQX_POLY and not crc.is_reflected:
        start = crc.init
        return lambda data: binascii.crc_hqx(data, start) ^ final
    if crc.width == 32 and crc.poly == _ZLIB_POLY and crc.is_reflected and crc.init == 0xFFFFFFFF:
        final ^= 0xFFFFFFFF
        return lambda data: zlib.crc32(data) ^ final
    return _reflected(crc) if crc.is_reflected else _forward(crc)


def _reflected(crc: Crc) -> Callable[[bytes], int]:
    """The low bit of each byte first."""
    poly, start = (_turned(value, crc.width) for value in (crc.poly, crc.init))
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (poly if value & 1 else 0)
        table.append(value)
    final = crc.xor_out

    def compute(data: bytes) -> int:
        value = start
        for byte in data:
            value = value >> 8 ^ table[(value ^ byte) & 255]
        return value ^ final

    return compute


def _forward(crc: Crc) -> Callable[[bytes], int]:
    """The high bit of each byte first."""
    width, mask = crc.width, (1 << crc.width) - 1
    top, shift = 1 << width - 1, width - 8
    table = []
    for byte in range(256):
        value = byte << shift
        for _ in range(8):
            value = (value << 1 ^ (crc.poly if value & top else 0)) & mask
        table.append(value)
    start, final = crc.init, crc.xor_out

    def compute(data: bytes) -> int:
        value = start
        for byte in data:
            value = (value << 8 & mask) ^ table[value >> shift ^ byte]
        return value ^ final

    return compute


def _turned(value: int, width: int) -> int:
    return int(f"{value:0{width}b}"[::-1], 2)
