from __future__ import annotations

import struct

import msgspec
import pytest

from protocols.codecs import CodecSpec, LayoutField
from protocols.codecs.registers import (
    COILS,
    DISCRETE,
    HOLDING,
    INPUT,
    MAPS_BYTES_MAX,
    Block,
    Register,
    encode_map,
    encode_reading,
    registers_decoder,
)
from tests.fuzz.work import memory_of, steps_limit
from tests.protocols.codecs.decoding import decode, error, messages

SPEC = CodecSpec("registers")
MAP = [
    Register(HOLDING, 100, LayoutField("temperature", "i16", scale=0.1, unit="Cel")),
    Register(HOLDING, 101, LayoutField("energy", "u32"), low_first=True),
    Register(HOLDING, 101, LayoutField("energy_high_first", "u32")),
    Register(INPUT, 0, LayoutField("flow", "f32")),
    Register(INPUT, 2, LayoutField("name", "string", 4)),
    Register(INPUT, 4, LayoutField("state", "u16", values={"2": "open"})),
    Register(COILS, 5, LayoutField("pump", "bool")),
    Register(DISCRETE, 5, LayoutField("door", "bool")),
]
BLOCKS = [
    Block(HOLDING, 100, struct.pack(">hHH", -55, 1, 2)),
    Block(INPUT, 0, struct.pack(">f", 1.5) + b"ab\0\0" + b"\0\2"),
    Block(COILS, 4, b"\0\1"),
    Block(DISCRETE, 5, b"\0"),
]


def test_registers_mean_what_the_map_says() -> None:
    payload = encode_reading(BLOCKS, encode_map(MAP))
    assert messages(payload, SPEC) == [
        {
            "temperature": -5.5,
            "energy": 2 << 16 | 1,
            "energy_high_first": 1 << 16 | 2,
            "flow": 1.5,
            "name": "ab",
            "state": "open",
            "pump": True,
            "door": False,
        }
    ]
    assert decode(payload, SPEC).units == {"temperature": "Cel"}


def test_what_was_not_read_is_left_out() -> None:
    payload = encode_reading(BLOCKS[2:], encode_map(MAP))
    assert messages(payload, SPEC) == [{"pump": True, "door": False}]


def test_payloads_of_several_units_keep_their_order() -> None:
    one = encode_reading([Block(HOLDING, 1, b"\0\1")], encode_map([Register(HOLDING, 1, LayoutField("a", "u16"))]))
    two = encode_reading([Block(HOLDING, 1, b"\0\2")], encode_map([Register(HOLDING, 1, LayoutField("b", "u16"))]))
    decoded = registers_decoder(SPEC)([one, b"\xc0", two, one])
    assert decoded.data == [b'{"a":1}', b'{"b":2}', b'{"a":1}']
    assert decoded.place == [0, 2, 3]
    assert [place for place, _ in decoded.errors] == [1]


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b"", "no reading of registers"),
        (msgspec.msgpack.encode([2, [], []]), "version 2; known is 1"),
        (encode_reading(BLOCKS, msgspec.msgpack.encode("x")), "no map of registers"),
        (encode_reading(BLOCKS, encode_map([])), "no register of the map"),
        (encode_reading(BLOCKS, encode_map([Register(HOLDING, 102, LayoutField("a", "u32"))])), "no register of the"),
        (encode_reading(BLOCKS, encode_map([Register(HOLDING, 100, LayoutField("a", "u24"))])), "'u24' at place 0"),
    ],
)
def test_what_cannot_be_read_says_why(payload: bytes, said: str) -> None:
    assert said in error(payload, SPEC).detail


def test_a_hostile_reading_is_no_more_work_than_its_bytes() -> None:
    many = encode_reading([Block(INPUT, 9, b"")] * 10_000, encode_map(MAP))
    wide = encode_reading(
        BLOCKS, encode_map([Register(HOLDING, 100, LayoutField(f"r{n}", "u16")) for n in range(5000)])
    )
    with steps_limit(60 * len(many)):
        assert "a reading of 10,000 blocks" in error(many, SPEC).detail
        assert "a map of 5,000 registers" in error(wide, SPEC).detail


def test_a_map_says_what_is_wrong_with_it_in_a_sentence() -> None:
    for field, said in (
        (LayoutField("a\0b", "u16"), "U+0000"),
        (LayoutField("a", "u16", values={"1": "\0"}), "U+0000"),
        (LayoutField("a", "u16", endian="x" * 9000), "endian"),
    ):
        found = error(encode_reading([Block(HOLDING, 0, b"\0\1")], encode_map([Register(HOLDING, 0, field)])), SPEC)
        assert said in found.detail
        assert len(found.detail) < 400


def test_maps_are_remembered_in_bounds() -> None:
    decoder = registers_decoder(SPEC)
    blocks = [Block(HOLDING, 0, b"\0\1")]
    values = {str(n): "x" * 50 for n in range(500)}

    def decode_some() -> None:
        for number in range(60):
            field = LayoutField(f"a{number}", "u16", values=values)
            assert decoder([encode_reading(blocks, encode_map([Register(HOLDING, 0, field)]))]).data

    assert memory_of(decode_some).kept < 16 * MAPS_BYTES_MAX
