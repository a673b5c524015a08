"""Binary layouts: what fields become, and what cannot be."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.codecs import CODECS, CodecSpec, Layout, LayoutBits, LayoutField, SpecError
from protocols.codecs.layout import units_of
from tests.protocols.codecs.decoding import decode, error, messages

Field = LayoutField


def spec(*fields: LayoutField, **settings: Any) -> CodecSpec:
    return CodecSpec(codec="layout", layout=Layout(fields, **settings))


TEN = spec(
    Field("counter", "u32"),
    Field("temperature", "i16", scale=0.1, unit="Cel"),
    Field("humidity", "u8", scale=0.5, unit="%RH"),
    Field("pressure", "u16", scale=0.1, offset=300),
    Field("battery", "u16", scale=0.001, absent=0xFFFF),
    Field(
        "status", "u8", bits=(LayoutBits("alarm", 0), LayoutBits("mode", 1, 3), LayoutBits("trim", 4, 4, signed=True))
    ),
    Field("flow", "f32"),
    Field("valve", "u8", values={"0": "closed", "1": "open"}),
    Field("at", "u32", time="s"),
    Field("rssi", "i8"),
)


def ten(counter: int = 7, battery: int = 3300, valve: int = 1) -> bytes:
    return struct.pack(">IhBHHBfBIb", counter, -123, 99, 7132, battery, 0xE7, 1.5, valve, 1_770_000_000, -71)


def test_fields_of_every_kind() -> None:
    decoded = decode(ten(), TEN)
    assert json.loads(decoded.data[0]) == {
        "counter": 7,
        "temperature": -12.3,
        "humidity": 49.5,
        "pressure": 1013.2,
        "battery": 3.3,
        "alarm": True,
        "mode": 3,
        "trim": -2,
        "flow": 1.5,
        "valve": "open",
        "rssi": -71,
    }
    assert decoded.time == [1_770_000_000_000]
    assert decoded.units == {"temperature": "Cel", "humidity": "%RH"} == units_of(TEN)


def test_a_raw_value_that_means_none_leaves_the_attribute_out() -> None:
    assert "battery" not in messages(ten(battery=0xFFFF), TEN)[0]
    assert messages(ten(valve=9), TEN)[0]["valve"] == 9


@pytest.mark.parametrize("length", range(22))
def test_a_payload_that_is_cut_off_says_where_and_in_which_field(length: int) -> None:
    starts = [0, 4, 6, 7, 9, 11, 12, 16, 17, 21]
    names = ["counter", "temperature", "humidity", "pressure", "battery", "status", "flow", "valve", "at", "rssi"]
    place = max(i for i, start in enumerate(starts) if start <= length)
    found = error(ten()[:length], TEN)
    assert (found.offset, found.path) == (starts[place], names[place])
    assert f"(byte {starts[place]})" in found.detail


def test_bytes_behind_the_last_field_are_an_error_unless_they_are_to_be_ignored() -> None:
    fields = (Field("a", "u8"),)
    assert error(b"\1\2\3", spec(*fields)).offset == 1
    assert messages(b"\1\2\3", spec(*fields, rest="ignore")) == [{"a": 1}]


@pytest.mark.parametrize(("order", "end"), [("", "374b"), ("little", "374b"), ("big", "4b37")])
def test_a_checksum_at_the_end(order: str, end: str) -> None:
    fields = spec(Field("text", "string"), checksum="CRC-16/MODBUS", checksum_order=order)
    assert messages(b"123456789" + bytes.fromhex(end), fields) == [{"text": "123456789"}]
    found = error(b"123456780" + bytes.fromhex(end), fields)
    assert (found.offset, found.path) == (9, "checksum")
    assert found.detail.startswith(f"CRC-16/MODBUS is {end}, and ")
    for payload in (b"", b"\1"):
        assert error(payload, fields).offset == 0
    for wrong, field in (
        ({"checksum": "CRC-17"}, "checksum"),
        ({"checksum": "CRC-8/LTE", "checksum_order": "x"}, "checksum_order"),
    ):
        with pytest.raises(SpecError) as refused:
            CODECS["layout"](spec(Field("a"), **wrong))
        assert refused.value.field == f"layout.{field}"


@given(st.integers(-(2**47), 2**47 - 1), st.integers(0, 2**24 - 1), st.sampled_from(["big", "little"]))
def test_odd_sizes_and_both_byte_orders(signed: int, unsigned: int, order: Any) -> None:
    fields = (Field("s", "i48"), Field("u", "u24"), Field("turned", "u16", endian="little"))
    payload = signed.to_bytes(6, order, signed=True) + unsigned.to_bytes(3, order) + b"\x01\x02"
    assert messages(payload, spec(*fields, endian=order)) == [{"s": signed, "u": unsigned, "turned": 0x0201}]


@given(st.integers(-(2**15), 2**15 - 1), st.sampled_from([0.1, 0.01, 0.001, 0.5, 0.25]), st.sampled_from([0, -40, 20]))
def test_scaled_values_are_the_nearest_to_the_decimal_ones(raw: int, scale: float, offset: int) -> None:
    steps = round(1 / scale)
    (message,) = messages(raw.to_bytes(2, "big", signed=True), spec(Field("v", "i16", scale=scale, offset=offset)))
    assert message["v"] == (raw + offset * steps) / steps


def test_text_digits_and_hexadecimal() -> None:
    fields = (
        Field("serial", "bytes", 3),
        Field("count", "bcd", 2),
        Field(type="skip", length=2),
        Field("text", "string"),
    )
    assert messages(b"\x00\x12\xab\x47\x11..pump\0\0", spec(*fields)) == [
        {"serial": "0012ab", "count": 4711, "text": "pump"}
    ]
    assert error(b"\x00\x12\xab\x4f\x11..", spec(*fields)).offset == 3
    assert error(b"\x00\x12\xab\x47\x11..\xff", spec(*fields)).offset == 7


def test_conditions_and_lengths_by_earlier_fields() -> None:
    fields = (
        Field("kind", "u8"),
        Field("level", "u16", when="kind == 1"),
        Field("flags", "u8", when="kind != 1"),
        Field("depth", "u8", when="flags & 0x80", scale=0.1),
        Field("size", "u8"),
        Field("name", "string", "size"),
    )
    assert messages(b"\1\1\0\2ab", spec(*fields)) == [{"kind": 1, "level": 256, "size": 2, "name": "ab"}]
    assert messages(b"\2\x81\x15\0", spec(*fields)) == [{"kind": 2, "flags": 0x81, "depth": 2.1, "size": 0, "name": ""}]
    found = error(b"\1\1\0\2a", spec(*fields))
    assert (found.offset, found.path) == (4, "name")


def test_repeated_fields_become_arrays() -> None:
    counted = spec(Field("n", "u8"), Field("x", "u16", repeat="n", scale=0.5), Field("last", "u8"))
    assert messages(b"\2\0\1\0\2\7", counted) == [{"n": 2, "x": [0.5, 1], "last": 7}]
    until_end = spec(Field("p", "group", fields=(Field("a", "u8"), Field("b", "i8")), repeat="end"))
    assert messages(b"\1\xff\2\xfe", until_end) == [{"p": [{"a": 1, "b": -1}, {"a": 2, "b": -2}]}]
    assert error(b"\1\xff\2", until_end).offset == 3
    assert messages(b"", until_end) == [{"p": []}]


def samples(**group: Any) -> CodecSpec:
    return spec(
        Field("at", "u32", time="s"),
        Field("every", "u8"),
        Field("battery", "u8"),
        Field("samples", "group", messages=True, repeat="end", **{"fields": (Field("t", "i8"),), **group}),
    )


def test_several_samples_are_several_messages_each_at_its_time() -> None:
    decoded = decode(struct.pack(">IBBbbb", 1_770_000_000, 60, 9, 1, 2, -3), samples(step_s="every"))
    assert [json.loads(data) for data in decoded.data] == [
        {"every": 60, "battery": 9, "t": 1},
        {"every": 60, "battery": 9, "t": 2},
        {"every": 60, "battery": 9, "t": -3},
    ]
    assert decoded.time == [1_770_000_000_000, 1_770_000_060_000, 1_770_000_120_000]
    assert (decoded.index, decoded.relative) == ([0, 1, 2], [])


def test_a_sample_may_have_a_time_of_its_own() -> None:
    own = samples(fields=(Field("when", "u32", time="s", epoch="2000-01-01T00:00:00Z"), Field("t", "i8")))
    decoded = decode(struct.pack(">IBBIb", 1_770_000_000, 60, 9, 60, 1), own)
    assert decoded.time == [946_684_860_000]


def test_times_that_count_from_reception() -> None:
    ago = spec(Field("age", "u16", time="s", epoch="ago"), Field("v", "u8"))
    decoded = decode(b"\0\x0a\1", ago)
    assert (decoded.time, decoded.relative) == ([-10_000], [0])
    stepped = spec(Field("s", "group", fields=(Field("v", "u8"),), repeat="end", messages=True, step_s=-60))
    decoded = decode(b"\1\2", stepped)
    assert (decoded.time, decoded.relative) == ([0, -60_000], [0, 1])


def test_a_count_that_no_payload_has_room_for() -> None:
    nested = spec(Field("n", "u32"), Field("x", "u8", repeat="n"))
    assert "limit is 4096" in error(b"\xff\xff\xff\xff\0", nested).detail
    empty = spec(Field("n", "u16"), Field("g", "group", fields=(Field("v", "u8", when="n == 0"),), repeat="n"))
    assert "takes no bytes" in error(b"\x0f\xff", empty).detail


def test_alias_and_key_are_fields_like_others() -> None:
    named = CodecSpec(
        codec="layout",
        alias_path="serial",
        key_paths=("boot", "seq"),
        layout=Layout((Field("serial", "bytes", 2), Field("boot", "u8"), Field("seq", "u16"))),
    )
    decoded = decode(b"\x00\x0a\1\0\2", named)
    assert (decoded.alias, decoded.key) == (["000a"], [(1, 2)])


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("layout.fields", []),
        ("layout.fields[0].type", [Field("a", "u7")]),
        ("layout.fields[0].endian", [Field("a", endian="middle")]),
        ("layout.fields[0].length", [Field("a", "u8", 3)]),
        ("layout.fields[0].length", [Field("a", "string", "n")]),
        ("layout.fields[1].length", [Field("n", "f32"), Field("a", "string", "n")]),
        ("layout.fields[0].repeat", [Field("a", repeat="m")]),
        ("layout.fields[0].repeat", [Field("a", repeat=0)]),
        ("layout.fields[0].repeat", [Field("a", repeat=5000)]),
        ("layout.fields[0].when", [Field("a", when="a == 1")]),
        ("layout.fields[1].when", [Field("a"), Field("b", when="a is 1")]),
        ("layout.fields[0].bits[0].at", [Field("a", bits=(LayoutBits("x", 7, 2),))]),
        ("layout.fields[0].bits", [Field("a", "f32", bits=(LayoutBits("x", 0),))]),
        ("layout.fields[0].scale", [Field("a", "string", 3, scale=2)]),
        ("layout.fields[0].scale", [Field("a", scale=0)]),
        ("layout.fields[0].values", [Field("a", values={"one": "x"})]),
        ("layout.fields[0].time", [Field("a", "u32", time="weeks")]),
        ("layout.fields[0].epoch", [Field("a", "u32", time="s", epoch="yesterday")]),
        ("layout.fields[0].name", [Field(type="group", fields=(Field("b"),))]),
        ("layout.fields[0].fields", [Field("g", "group")]),
        ("layout.fields[0].fields[0].type", [Field("g", "group", fields=(Field("b", "x"),))]),
        ("layout.fields[1].messages", [Field("g", "group", fields=(Field("b"),), messages=True)] * 2),
        ("layout.fields[0]", [Field("a"), Field("a")]),
        ("layout", [Field("a", "u32", time="s"), Field("b", "u32", time="s", epoch="ago")]),
        ("layout.fields[256]", [Field(f"f{n}") for n in range(257)]),
    ],
)
def test_a_layout_that_cannot_work_is_refused_by_its_field(field: str, fields: list[LayoutField]) -> None:
    with pytest.raises(SpecError) as refused:
        CODECS["layout"](spec(*fields))
    assert refused.value.field == field


def test_a_group_in_itself_is_refused() -> None:
    inner = Field("g", "group", fields=(Field("v"),))
    for _ in range(5):
        inner = Field("g", "group", fields=(inner,))
    with pytest.raises(SpecError, match="nested"):
        CODECS["layout"](spec(inner))


names = st.sampled_from(["a", "b", "c", "d", ""])
leaves = st.builds(
    LayoutField,
    name=names,
    type=st.sampled_from(["u8", "i16", "u24", "f16", "f32", "f64", "bool", "string", "bytes", "bcd", "skip", "u64"]),
    length=st.sampled_from([0, 0, 0, 2, "a"]),
    endian=st.sampled_from(["", "little"]),
    scale=st.sampled_from([1, 1, 0.1]),
    absent=st.sampled_from([None, None, 0]),
    when=st.sampled_from(["", "", "a & 1", "b == 0"]),
    time=st.sampled_from(["", "", "", "s", "ms"]),
    epoch=st.sampled_from(["", "received"]),
    repeat=st.sampled_from([1, 1, 1, 3, "a", "end"]),
    bits=st.sampled_from([(), (), (LayoutBits("d", 0), LayoutBits("b", 1, 7, signed=True))]),
)
any_field = leaves | st.builds(
    LayoutField,
    name=names,
    type=st.just("group"),
    fields=st.lists(leaves, min_size=1, max_size=3).map(tuple),
    repeat=st.sampled_from([2, "a", "end"]),
    messages=st.booleans(),
    step_s=st.sampled_from([0, 1, "a"]),
)


@given(st.lists(any_field, min_size=1, max_size=5), st.binary(max_size=40))
def test_whatever_the_layout_any_payload_is_decoded_or_has_its_error(fields: list[LayoutField], payload: bytes) -> None:
    try:
        decoder = CODECS["layout"](spec(*fields))
    except SpecError:
        return
    decoded = decoder([payload])
    assert bool(decoded.errors) != bool(decoded.data)
    assert all(type(json.loads(data)) is dict for data in decoded.data)
