"""Cayenne Low Power Payload: channel, type, value, and so on until the payload ends.

    0        1     channel
    1        1     type, which says how long the value is
    2        …     big endian

An attribute is called after type and channel: `temperature_3`. Where a channel's type is there again, another message
begins. A unixtime is the time of its message. Types beyond the first twelve are those of the common libraries.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from protocols.codecs.base import Decoded, Decoder, nothing_decoded
from protocols.codecs.reader import MessageReader
from protocols.codecs.spec import CodecSpec
from protocols.errors import DecodeError
from protocols.limits import MESSAGES_PER_RECORD_MAX


class _Kind(msgspec.Struct, frozen=True):
    name: str
    size: int
    read: Callable[[bytes], Any]
    unit: str = ""


def _scaled(code: str, divisor: int = 1) -> Callable[[bytes], float]:
    unpack = struct.Struct(">" + code).unpack

    def read(data: bytes) -> float:
        raw: int = unpack(data)[0]
        return raw / divisor if divisor != 1 else raw

    return read


def _axes(divisor: int) -> Callable[[bytes], dict[str, float]]:
    unpack = struct.Struct(">hhh").unpack

    def read(data: bytes) -> dict[str, float]:
        return {axis: raw / divisor for axis, raw in zip("xyz", unpack(data), strict=True)}

    return read


def _place(data: bytes) -> dict[str, float]:
    raw = [int.from_bytes(data[at : at + 3], "big", signed=True) for at in (0, 3, 6)]
    return {"latitude": raw[0] / 10_000, "longitude": raw[1] / 10_000, "altitude": raw[2] / 100}


def _colour(data: bytes) -> dict[str, int]:
    return {"r": data[0], "g": data[1], "b": data[2]}


UNIX_TIME: Final = 0x85
KINDS: Final = {
    0x00: _Kind("digital_in", 1, _scaled("B")),
    0x01: _Kind("digital_out", 1, _scaled("B")),
    0x02: _Kind("analog_in", 2, _scaled("h", 100)),
    0x03: _Kind("analog_out", 2, _scaled("h", 100)),
    0x64: _Kind("generic", 4, _scaled("I")),
    0x65: _Kind("illuminance", 2, _scaled("H"), "lx"),
    0x66: _Kind("presence", 1, _scaled("B")),
    0x67: _Kind("temperature", 2, _scaled("h", 10), "Cel"),
    0x68: _Kind("humidity", 1, _scaled("B", 2), "%RH"),
    0x71: _Kind("accelerometer", 6, _axes(1000), "g"),
    0x73: _Kind("barometer", 2, _scaled("H", 10), "hPa"),
    0x74: _Kind("voltage", 2, _scaled("H", 100), "V"),
    0x75: _Kind("current", 2, _scaled("H", 1000), "A"),
    0x76: _Kind("frequency", 4, _scaled("I"), "Hz"),
    0x78: _Kind("percentage", 1, _scaled("B"), "%"),
    0x79: _Kind("altitude", 2, _scaled("h"), "m"),
    0x7D: _Kind("concentration", 2, _scaled("H"), "ppm"),
    0x80: _Kind("power", 2, _scaled("H"), "W"),
    0x82: _Kind("distance", 4, _scaled("I", 1000), "m"),
    0x83: _Kind("energy", 4, _scaled("I", 1000), "kWh"),
    0x84: _Kind("direction", 2, _scaled("H"), "deg"),
    UNIX_TIME: _Kind("unixtime", 4, _scaled("I"), "s"),
    0x86: _Kind("gyrometer", 6, _axes(100), "deg/s"),
    0x87: _Kind("colour", 3, _colour),
    0x88: _Kind("gps", 9, _place),
    0x8E: _Kind("switch", 1, _scaled("B")),
}


def cayenne_decoder(spec: CodecSpec) -> Decoder:
    """Raises SpecError."""
    reader = MessageReader(spec)

    def decode(payloads: Sequence[bytes]) -> Decoded:
        out = nothing_decoded()
        for place, payload in enumerate(payloads):
            try:
                items, times = _messages(payload, out.units)
                reader.add_all(out, place, payload, items, times)
            except DecodeError as error:
                out.errors.append((place, error))
        return out

    return decode


def _messages(payload: bytes, units: dict[str, str]) -> tuple[list[dict[str, Any]], list[int | None]]:
    items: list[dict[str, Any]] = [{}]
    times: list[int | None] = [None]
    at = 0
    while at < len(payload):
        if at + 2 > len(payload):
            raise DecodeError("a channel without its type: the payload ends", offset=at)
        channel, code = payload[at], payload[at + 1]
        kind = KINDS.get(code)
        if kind is None:
            raise DecodeError(f"type {code} (0x{code:02x}) is none of Cayenne LPP", offset=at + 1)
        data = payload[at + 2 : at + 2 + kind.size]
        if len(data) < kind.size:
            raise DecodeError(f"{kind.name} takes {kind.size} bytes, {len(data)} are left", offset=at + 2)
        name = f"{kind.name}_{channel}"
        is_time = code == UNIX_TIME
        if times[-1] is not None if is_time else name in items[-1]:
            if len(items) == MESSAGES_PER_RECORD_MAX:
                raise DecodeError(f"more than {MESSAGES_PER_RECORD_MAX} messages in one payload", offset=at)
            items.append({})
            times.append(None)
        if is_time:
            times[-1] = kind.read(data) * 1000
        else:
            items[-1][name] = kind.read(data)
            if kind.unit:
                units[name] = kind.unit
        at += 2 + kind.size
    if not payload:
        raise DecodeError("an empty payload", offset=0)
    return items, times
