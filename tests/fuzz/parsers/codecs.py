"""Every codec, by the simplest spec and by one that uses all that it may say."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Final

import cbor2
import msgspec

from protocols.codecs import CODECS, CodecSpec, Decoded, Decoder
from protocols.codecs.registers import COILS, HOLDING, Block, Register, encode_map, encode_reading
from protocols.codecs.spec import LayoutField
from protocols.codecs.trial import try_payload
from protocols.limits import DECODED_BYTES_MIN, DECODED_RATIO_MAX, MESSAGES_PER_RECORD_MAX
from tests.fuzz.target import TAKEN, Parser, Stretch
from tests.protocols.codecs.test_any_codec import GOOD, spec_of

RICH: Final = CodecSpec(
    alias_path="dev.id", key_paths=("boot", "dev.seq"), time_path="dev.at", time_zone="+01:00", messages_path="s"
)
"""Alias, key and time within the payload, and several messages in it."""

OBJECT: Final = {
    "dev": {"id": "p7", "seq": 3, "at": 1_770_000_000}, "boot": 1, "x": [1.5, None, True, "ü"],
    "s": [{"t": 1}, {"t": -2.5, "dev": {"id": 7, "at": "2026-02-02T03:40:00"}}],
}  # fmt: skip
MAP: Final = encode_map(
    [
        Register(HOLDING, 7, LayoutField("a", "u16", scale=0.1, unit="Cel")),
        Register(HOLDING, 8, LayoutField("b", "f32", digits=2), low_first=True),
        Register(COILS, 3, LayoutField("c", "bool")),
    ]
)
SPECS: Final[dict[str, tuple[CodecSpec, ...]]] = {
    "json": (RICH, CodecSpec(attributes={"t": "s.0.t", "id": "dev.id"}, time_path="", key_paths=("a",))),
    "cbor": (msgspec.structs.replace(RICH, codec="cbor"),),
    "messagepack": (msgspec.structs.replace(RICH, codec="messagepack"),),
    "senml": (CodecSpec("senml", alias_path="bn", units={"a": "Cel"}, key_paths=("a",)),),
    "csv": (
        CodecSpec("csv", columns=("time", "-", "t", "on"), delimiter=";", decimal=",", types={"on": "boolean"}),
        CodecSpec("csv", time_unit="s", time_epoch="ago"),
    ),
    "key-value": (
        CodecSpec("key-value", alias_path="id", assign=":", delimiter=";", types={"t": "number", "id": "text"}),
    ),
    "cayenne-lpp": (CodecSpec("cayenne-lpp", key_paths=("digital_in_1",)),),
    "envelope": (CodecSpec("envelope", key_paths=("boot", "seq")),),
}  # fmt: skip
SEEDS: Final[dict[str, tuple[bytes, ...]]] = {
    "json": (
        json.dumps(OBJECT).encode(),
        b'[{"a":1},{"a":2}]',
        b'{"a":1}\n{"a":{"b":[0.1e-7,null]}}\n',
        b'{"time":1770000000,"a":"\\u20ac"}',
    ),
    "cbor": (
        cbor2.dumps(OBJECT),
        cbor2.dumps([{"a": b"\0", "b": 1.5}, {"a": 2**70}]),
        cbor2.dumps({"a": 1}) * 2,
        b"\xbf\x61a\xc1\x1a\x69\x80\x00\x00\x61b\xc4\x82\x21\x19\x03\x48\xff",
        b"\xa1\x61t\xc0\x74" + b"2026-02-02T03:40:00Z",
        b"\xa2\x01\xf9\x3c\x00\xf5\x9f\x01\xf7\xe0\xff",
    ),
    "messagepack": (
        msgspec.msgpack.encode(OBJECT),
        msgspec.msgpack.encode([{"a": b"\0"}, {"a": 2**63}]),
        b"\x82\xa1t\xd6\xff\x69\x80\x00\x00\xa1x\xc7\x02\x05ab",
    ),
    "senml": (
        b'[{"bn":"urn:dev:p7:","bt":1770000000,"bu":"Cel","bv":20,"n":"a","v":1},{"n":"b","vs":"x","t":-5},{"n":"a","v":2,"s":3}]',
        b'[{"n":"c","vb":true},{"n":"d","vd":"aGk"},{"n":"e","v":1.5,"u":"V","t":10,"ut":5}]',
        cbor2.dumps([{-2: "p7/", -3: 1_770_000_000, 0: "a", 2: 21.5}, {0: "a", 2: 22, 6: 1}, {0: "b", 5: 7}]),
    ),
    "csv": (
        b"time;x;t;on\n1770000000;y;21,5;yes\n1770000060;;;no\n",
        b'a,b\n1,"x, ""y"""\n,n/a\n',
        b"1770000000;y;21,5;1\r\n",
    ),
    "key-value": (b'a=1 b="x y";c=true\nd=2', b"t:21.5;id:007;", b"time=1770000000&a=nan"),
    "cayenne-lpp": (
        b"\1\0\1\2\x67\x01\x10\3\x71\x04\xd2\xfb\x2e\0\0\1\0\2",
        b"\1\x88\x06\x76\x5f\xf2\x96\x0a\x00\x03\xe8\1\x85\x69\x80\0\0\1\x85\x69\x80\0\1\2\x87\1\2\3",
    ),
    "layout": (b"\x03\x0babc\0\1\0\2\0\3", b"\0\0\0\1"),
    "registers": (
        encode_reading([Block(HOLDING, 7, b"\0\1\x41\x20\0\0"), Block(COILS, 2, b"\0\1")], MAP),
        encode_reading([], MAP),
    ),
    "envelope": (
        b'{"data":{"boot":1,"seq":2},"time":"2026-02-02T03:40:00Z"}',
        b'{"data":[{"a":1},{"a":2}],"id":"x","time":1770000000}',
    ),
}  # fmt: skip
DEEP: Final = (
    Stretch(b"", b"["),
    Stretch(b"", b'{"a":'),
    Stretch(b"", b"\x81"),
    Stretch(b"", b"\x81\x61a"),
    Stretch(b"", b"\xd8"),
    Stretch(b"", b"\xc1"),
    Stretch(b"", b"a="),
    Stretch(b"", b'"'),
    Stretch(b"", b"1"),
)
"""What is deep, or never ends, in one format or another."""
STRETCHES: Final[dict[str, tuple[Stretch, ...]]] = {
    "json": (
        Stretch(b"[", b'{"a":1},', b'{"a":1}]'),
        Stretch(b"", b'{"a":1}\n'),
        Stretch(b'{"a":', b"9", b"}"),
        Stretch(b'{"a":"', b"\\u20ac", b'"}'),
        Stretch(b'{"s":[', b"{},", b"{}]}"),
        Stretch(b'{"s":[{},{},{},{},{},{}],"x":[', b"{},", b"{}]}"),
        Stretch(b'{"a":[', b"[],", b"[]]}"),
    ),
    "cbor": (
        Stretch(b"", b"\xa1\x61a\x01"),
        Stretch(b"\x9f", b"\xa0", b"\xff"),
        Stretch(b"\xa1\x61a\x9f", b"\x01", b"\xff"),
        Stretch(b"\xbf", b"\x61a\x01", b"\xff"),
        Stretch(b"\xa1\x61a\x7f", b"\x61a", b"\xff"),
        Stretch(b"\xa1\x61a\xc2\x5a\x00\x03\x00\x00", b"\xff"),
        Stretch(b"\xa1\x61a\xc4\x82\x1b\x7f\xff\xff\xff\xff\xff\xff\xff\xc2\x5a\x00\x03\x00\x00", b"\xff"),
        Stretch(b"\xa2\x61x\xa0\x61s\x9f", b"\xa0", b"\xff"),
    ),
    "messagepack": (
        Stretch(b"\xdd\x00\x00\x0f\x00", b"\x80"),
        Stretch(b"\xdd\x00\x03\x00\x00", b"\x80"),
        Stretch(b"\x81\xa1s\xdd\x00\x00\x0f\x00", b"\x80"),
    ),
    "senml": (
        Stretch(b'[{"bn":"a","v":1},', b'{"v":1},', b'{"v":1}]'),
        Stretch(b'[{"bn":"a","bv":1},', b'{"n":""},', b'{"n":"b"}]'),
        Stretch(b"\x9f\xa2\x21\x61a\x24\x01", b"\xa1\x02\x01", b"\xff"),
        Stretch(b'[{"bn":"', b"a", b'","v":1}' + b',{"v":1}' * 2000 + b"]"),
        Stretch(b"[", b'{"n":"a","v":1,"s":1},{"n":"a","v":1},', b'{"n":"b","v":1}]'),
    ),
    "csv": (
        Stretch(b"a,b\n", b"1,2\n"),
        Stretch(b"", b"a,"),
        Stretch(b"a\n", b"\n"),
        Stretch(b'a\n"', b'""'),
        Stretch(b"a\n", b" "),
        Stretch(b"", b"\x0b"),
    ),
    "key-value": (
        Stretch(b"", b"a=1\n"),
        Stretch(b"a=", b"1"),
        Stretch(b"", b" "),
        Stretch(b"", b'"='),
        Stretch(b'a="', b"x"),
        Stretch(b"", b"a=;"),
    ),
    "cayenne-lpp": (Stretch(b"", b"\1\0\1"), Stretch(b"", b"\1\0\1\2\0\1"), Stretch(b"", b"\1\x85\0\0\0\0")),
    "layout": (Stretch(b"\0\0", b"\0\1"),),
    "registers": (
        Stretch(b"\x93\x01\x91\x93\x03\x07\xc5\xf0\x00", b"\0", MAP),
        Stretch(b"\x93\x01\xdc\x3f\xff", b"\x93\x03\x08\xc4\x00", MAP),
    ),
    "envelope": (Stretch(b'{"data":[', b"{},", b"{}]}"), Stretch(b'{"data":{},"id":"', b"x", b'"}')),
}


STEPS_PER_BYTE: Final = {
    "cbor": 300, "senml": 600, "csv": 400, "key-value": 80, "cayenne-lpp": 200, "layout": 200, "envelope": 150,
}  # fmt: skip
"""Each payload is decoded by each spec, and then once more."""


def decodes(codec: str) -> Callable[[bytes], str]:
    decoders = [CODECS[codec](spec) for spec in (spec_of(codec), *SPECS.get(codec, ()))]
    good = GOOD[codec]

    def check(data: bytes) -> str:
        codes = {decoded_by(decoder, data, good) for decoder in decoders}
        return TAKEN if TAKEN in codes else codes.pop()

    return check


def decoded_by(decoder: Decoder, data: bytes, good: bytes) -> str:
    decoded = decoder([good, data, good])
    check_columns(decoded)
    rows = [row for row, place in enumerate(decoded.place) if place == 1]
    errors = [error for place, error in decoded.errors if place == 1]
    assert bool(rows) != bool(errors), "messages, or an error"
    assert len(errors) <= 1
    assert [decoded.index[row] for row in rows] == list(range(len(rows)))
    assert len(rows) <= MESSAGES_PER_RECORD_MAX
    made = [decoded.data[row] for row in rows]
    assert sum(map(len, made)) <= DECODED_BYTES_MIN + DECODED_RATIO_MAX * len(data)
    assert all(type(json.loads(one)) is dict and b"\\u0000" not in one for one in made[:50])
    assert seen_of(decoded, 0) == seen_of(decoded, 2), "its neighbours are decoded as ever"
    tried = try_payload(decoder, data)
    assert [bytes(message.data) for message in tried.messages] == made, "alone, it is the same"
    if not errors:
        return TAKEN
    (error,) = errors
    assert error.offset is None or 0 <= error.offset <= len(data)
    assert len(error.detail) <= ERROR_CHARACTERS_MAX, "an error is for people"
    return error.code


ERROR_CHARACTERS_MAX: Final = 1000


def check_columns(decoded: Decoded) -> None:
    columns: Sequence[Sequence[object]] = (
        decoded.place, decoded.index, decoded.alias, decoded.key, decoded.time, decoded.data,
    )  # fmt: skip
    assert len({len(column) for column in columns}) == 1
    assert all(0 <= row < len(decoded.data) for row in decoded.relative)
    assert decoded.relative == sorted(decoded.relative)


def seen_of(decoded: Decoded, place: int) -> tuple[object, ...]:
    rows = [row for row, of in enumerate(decoded.place) if of == place]
    errors = [error.detail for of, error in decoded.errors if of == place]
    return [(decoded.index[row], decoded.alias[row], decoded.time[row], decoded.data[row]) for row in rows], errors


PARSERS: Final = tuple(
    Parser(
        f"codec:{codec}",
        decodes(codec),
        (*SEEDS[codec], GOOD[codec]),
        stretches=(*STRETCHES[codec], *DEEP),
        steps_per_byte=STEPS_PER_BYTE.get(codec, 40),
        kept_bytes_max=4 * 1024 * 1024 if codec == "registers" else 256 * 1024,
    )
    for codec in CODECS
)
