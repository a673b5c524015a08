"""What it costs to decode a message of ten attributes, by each codec, beside the bare parser of its format."""

from __future__ import annotations

import csv
import io
import json
import struct
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import cbor2
import msgspec

from benchmarks.row import Row
from protocols.codecs import CODECS, CodecSpec, Layout, LayoutBits, LayoutField

PAYLOADS: Final = 256
LAYOUT_GOAL_US: Final = 5.0
VALUES: Final[dict[str, Any]] = {
    "counter": 7, "temperature": -12.3, "humidity": 49.5, "pressure": 1013.2, "battery": 3.3, "mode": 3, "flow": 1.5,
    "total": 99, "rssi": -71, "alarm": True,
}  # fmt: skip
_LAYOUT: Final = Layout(
    (
        LayoutField("counter", "u32"),
        LayoutField("temperature", "i16", scale=0.1, unit="Cel"),
        LayoutField("humidity", "u8", scale=0.5, unit="%RH"),
        LayoutField("pressure", "u16", scale=0.1, unit="hPa"),
        LayoutField("battery", "u16", scale=0.001, unit="V"),
        LayoutField("status", "u8", bits=(LayoutBits("alarm", 0), LayoutBits("mode", 1, 3))),
        LayoutField("flow", "f32"),
        LayoutField("total", "u32"),
        LayoutField("at", "u32", time="s"),
        LayoutField("rssi", "i8"),
    )
)
_STRUCT: Final = struct.Struct(">IhBHHBfIIb")
_BINARY: Final = _STRUCT.pack(7, -123, 99, 10132, 3300, 0x07, 1.5, 99, 1_770_000_000, -71)
_SENML: Final = [{"bn": "d:", "bt": 1.77e9, "n": "counter", "v": 7}] + [
    {"n": name, "vb" if type(value) is bool else "v": value} for name, value in list(VALUES.items())[1:]
]
_CASES: Final[dict[str, tuple[CodecSpec, bytes, str, Callable[[bytes], Any] | None]]] = {
    "layout": (CodecSpec(codec="layout", layout=_LAYOUT), _BINARY, "struct alone", _STRUCT.unpack),
    "json": (CodecSpec(), json.dumps(VALUES).encode(), "msgspec alone", msgspec.json.decode),
    "cbor": (CodecSpec(codec="cbor"), cbor2.dumps(VALUES), "cbor2 alone", cbor2.loads),
    "messagepack": (
        CodecSpec(codec="messagepack"), msgspec.msgpack.encode(VALUES), "msgspec alone", msgspec.msgpack.decode,
    ),
    "senml": (CodecSpec(codec="senml"), json.dumps(_SENML).encode(), "msgspec alone", msgspec.json.decode),
    "csv": (
        CodecSpec(codec="csv", columns=tuple(VALUES)), ",".join(map(str, VALUES.values())).encode(), "csv alone",
        lambda payload: list(csv.reader(io.StringIO(payload.decode()))),
    ),
    "key-value": (
        CodecSpec(codec="key-value"), " ".join(f"{name}={value}" for name, value in VALUES.items()).encode(), "", None,
    ),
    "cayenne-lpp": (
        CodecSpec(codec="cayenne-lpp"),
        bytes.fromhex("0167ff85026863037327940474014a050203e806010a07000b0865006309660c0a7800"), "", None,
    ),
}  # fmt: skip


def rows(seconds: float) -> list[Row]:
    """The best of `seconds` for each codec and each baseline."""
    found = []
    for codec, (spec, payload, baseline, bare) in _CASES.items():
        decode = CODECS[codec](spec)
        payloads = [payload] * PAYLOADS
        assert not decode(payloads).errors
        found.append(
            Row(
                f"decode, {codec}",
                _best_us(partial(decode, payloads), seconds),
                "µs/message",
                goal=LAYOUT_GOAL_US if codec == "layout" else None,
                at_most=True,
                baseline=baseline,
                baseline_measured=None if bare is None else _best_us(partial(_each, bare, payloads), seconds),
                note=f"{len(payload)} bytes, ten attributes",
            )
        )
    return found


def _each(decode: Callable[[bytes], object], payloads: Sequence[bytes]) -> None:
    for payload in payloads:
        decode(payload)


def _best_us(work: Callable[[], object], seconds: float) -> float:
    best_s = float("inf")
    end_s = time.perf_counter() + seconds
    while time.perf_counter() < end_s:
        began_s = time.perf_counter()
        work()
        best_s = min(best_s, time.perf_counter() - began_s)
    return best_s / PAYLOADS * 1e6
