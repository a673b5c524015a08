"""CBOR, MessagePack and Cayenne LPP."""

from __future__ import annotations

import datetime
import json
import math
from typing import Any

import cbor2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.codecs import CodecSpec
from tests.protocols.codecs.decoding import decode, error, messages

CBOR = CodecSpec(codec="cbor")
PACK = CodecSpec(codec="messagepack")
LPP = CodecSpec(codec="cayenne-lpp")

texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=5)
scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | texts | st.floats(allow_nan=False, allow_infinity=False)
)
trees = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)
items = st.dictionaries(texts.filter(lambda name: name != "time"), trees, max_size=4)


@given(st.lists(items, min_size=1, max_size=4))
def test_data_comes_out_as_it_went_in(given_items: list[dict[str, Any]]) -> None:
    assert messages(cbor2.dumps(given_items), CBOR) == given_items
    assert messages(msgspec.msgpack.encode(given_items), PACK) == given_items
    assert messages(b"".join(map(cbor2.dumps, given_items)), CBOR) == given_items  # a sequence


def test_what_json_has_no_place_for_becomes_what_it_has() -> None:
    moment = datetime.datetime(2026, 2, 2, 2, 40, tzinfo=datetime.UTC)
    value = {"b": b"\xfb\xff\x01", "nan": math.nan, 7: True, "at": moment}
    shown = {"b": "-_8B", "nan": None, "7": True, "at": "2026-02-02T02:40:00Z"}
    assert messages(cbor2.dumps(value), CBOR) == [shown]
    assert messages(msgspec.msgpack.encode(value), PACK) == [shown]
    assert messages(cbor2.dumps({"u": cbor2.undefined, "t": cbor2.CBORTag(4711, [1])}), CBOR) == [{"u": None, "t": [1]}]


@pytest.mark.parametrize("tagged", [True, False])
def test_times_of_binary_formats_are_times(tagged: bool) -> None:
    moment = datetime.datetime(2026, 2, 2, 2, 40, tzinfo=datetime.UTC)
    time = moment if tagged else 1_770_000_000
    assert decode(cbor2.dumps({"time": time}), CBOR).time == [1_770_000_000_000]
    assert decode(msgspec.msgpack.encode({"time": time}), PACK).time == [1_770_000_000_000]


@pytest.mark.parametrize(
    ("payload", "said", "offset"),
    [
        ("", "ends in the middle", 0),
        ("a16161", "ends in the middle", 3),
        ("a1616101a161", "ends in the middle", 6),
        ("9b00000000ffffffff01", "ends in the middle", 10),
        ("a16161fc", "not CBOR", 3),
        ("a16161c4821a7fffffff01", None, None),  # 10^2147483647: null
        ("a16161c5821b00000000ffffffff01", "tag", None),
        ("d81c81d81d00", "tag", None),  # an array that holds itself
        ("a161618101a161610261", "ends in the middle", 10),
        ("a2616101616102", "Duplicate", None),
        ("a1616161c1", "text string", None),
        ("a1820102f6", "name", None),
        ("a1610061", "ends in the middle", 4),
        ("a1616161 00".replace(" ", ""), "U+0000", None),
        ("81" * 40 + "01", "not CBOR", None),
        ("a161615903e8" + "00" * 3, "ends in the middle", 9),
        ("05", "this is a number", None),
    ],
)
def test_cbor_that_cannot_be_read_says_why_and_where(payload: str, said: str | None, offset: int | None) -> None:
    if said is None:
        assert messages(bytes.fromhex(payload), CBOR) == [{"a": None}]
        return
    found = error(bytes.fromhex(payload), CBOR)
    assert said in found.detail
    assert offset is None or found.offset == offset


@pytest.mark.parametrize(
    ("payload", "said", "offset"),
    [
        ("", "ends in the middle", 0),
        ("81a161", "ends in the middle", 3),
        ("ddffffffff", "ends in the middle", 5),
        ("c1", "not MessagePack", 0),
        ("91" * 100 + "01", "deeper than 32", None),
        ("91" * 100_000 + "01", "deeper than 32", None),
        ("81a1616401", "not MessagePack", None),
        ("81a161c70105aa", "Ext", None),
        ("81a161a100", "U+0000", None),
    ],
)
def test_messagepack_that_cannot_be_read_says_why_and_where(payload: str, said: str, offset: int | None) -> None:
    found = error(bytes.fromhex(payload), PACK)
    assert said in found.detail
    assert offset is None or found.offset == offset


def test_cayenne_of_the_common_types() -> None:
    parts = ("03670110", "0567ffd7", "01683f", "067104d2fb2e0000", "018806765ff2960a0003e8")
    payload = bytes.fromhex("".join(parts))
    decoded = decode(payload, LPP)
    assert json.loads(decoded.data[0]) == {
        "temperature_3": 27.2,
        "temperature_5": -4.1,
        "humidity_1": 31.5,
        "accelerometer_6": {"x": 1.234, "y": -1.234, "z": 0.0},
        "gps_1": {"latitude": 42.3519, "longitude": -87.9094, "altitude": 10.0},
    }
    assert decoded.units["temperature_3"] == "Cel"


def test_cayenne_with_several_samples() -> None:
    sample = bytes.fromhex("0085 6980 0c80 0167 0110".replace(" ", ""))
    decoded = decode(sample + bytes.fromhex("0085 6980 0cbc 0167 0111".replace(" ", "")), LPP)
    assert [json.loads(data) for data in decoded.data] == [{"temperature_1": 27.2}, {"temperature_1": 27.3}]
    assert decoded.time == [0x69800C80 * 1000, 0x69800CBC * 1000]
    assert messages(bytes.fromhex("0167011001670111"), LPP) == [{"temperature_1": 27.2}, {"temperature_1": 27.3}]


@pytest.mark.parametrize(("payload", "offset"), [("", 0), ("03", 0), ("036701", 2), ("03ee00", 1), ("0367011003ff", 5)])
def test_cayenne_that_cannot_be_read_says_where(payload: str, offset: int) -> None:
    assert error(bytes.fromhex(payload), LPP).offset == offset
