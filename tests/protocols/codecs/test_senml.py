"""SenML, mostly by the examples of RFC 8428, section 5."""

from __future__ import annotations

import json
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.codecs import CodecSpec
from protocols.limits import MESSAGES_PER_RECORD_MAX
from tests.fuzz.work import steps_limit
from tests.protocols.codecs.decoding import decode, error, messages

SENML = CodecSpec(codec="senml")
LABELS = {
    "bver": -1, "bn": -2, "bt": -3, "bu": -4, "bv": -5, "bs": -6, "n": 0, "u": 1, "v": 2, "vs": 3, "vb": 4, "s": 5,
    "t": 6, "ut": 7, "vd": 8,
}  # fmt: skip
MULTIPLE = [
    {
        "bn": "urn:dev:ow:10e2073a0108006:",
        "bt": 1.276020076001e9,
        "bu": "A",
        "bver": 5,
        "n": "voltage",
        "u": "V",
        "v": 120.1,
    },
    {"n": "current", "t": -5, "v": 1.2},
    {"n": "current", "t": -4, "v": 1.3},
    {"n": "current", "v": 1.7},
]


def both(records: Any, spec: CodecSpec = SENML) -> list[tuple[int | None, dict[str, Any]]]:
    """Time and data of each message, by JSON and by CBOR, which have to agree."""
    by_json = decode(json.dumps(records).encode(), spec)
    labelled = [{LABELS.get(key, key): value for key, value in record.items()} for record in records]
    by_cbor = decode(cbor2.dumps(labelled), spec)
    assert not by_json.errors, by_json.errors[0][1].detail
    assert by_cbor == by_json
    return list(zip(by_json.time, map(json.loads, by_json.data), strict=True))


def test_one_value() -> None:
    record = {"n": "urn:dev:ow:10e2073a01080063", "u": "Cel", "v": 23.1}
    assert both([record]) == [(None, {"urn:dev:ow:10e2073a01080063": 23.1})]


def test_records_of_one_time_are_one_message() -> None:
    assert both(MULTIPLE) == [
        (1_276_020_076_001, {"voltage": 120.1, "current": 1.7}),
        (1_276_020_071_001, {"current": 1.2}),
        (1_276_020_072_001, {"current": 1.3}),
    ]
    assert decode(json.dumps(MULTIPLE).encode(), SENML).units == {"voltage": "V", "current": "A"}


def test_the_base_name_may_say_the_device() -> None:
    spec = CodecSpec(codec="senml", alias_path="bn")
    decoded = decode(json.dumps([*MULTIPLE, {"bn": "other/", "n": "current", "v": 2}]).encode(), spec)
    assert decoded.alias == ["urn:dev:ow:10e2073a0108006"] * 3 + ["other"]
    assert json.loads(decoded.data[3]) == {"current": 2}


def test_values_of_every_kind() -> None:
    records = [
        {"bn": "urn:dev:ow:10e2073a01080063:", "n": "temp", "u": "Cel", "v": 23.1},
        {"n": "label", "vs": "Machine Room"},
        {"n": "open", "vb": False},
        {"n": "nfc-reader", "vd": "aGkgCg"},
        {"n": "energy", "s": 12},
    ]
    assert both(records) == [
        (None, {"temp": 23.1, "label": "Machine Room", "open": False, "nfc-reader": "aGkgCg", "energy_sum": 12})
    ]


def test_base_values_and_sums_are_added() -> None:
    records = [{"bn": "a/", "bv": 20, "bs": 100}, {"n": "t", "v": 1.5}, {"n": "w", "v": 1, "s": 2}, {"n": "x"}]
    assert both(records) == [(None, {"t": 21.5, "w": 21, "w_sum": 102, "x": 20, "x_sum": 100})]


def test_a_name_without_its_own_part_is_called_as_the_end_of_the_base_name() -> None:
    assert both([{"bn": "urn:dev:mac:0024befffe804ff1/temp", "v": 1}]) == [(None, {"temp": 1})]


def test_times_below_2_to_the_28_count_from_reception() -> None:
    records = [{"bn": "a:", "n": "t", "t": -10, "v": 1}, {"n": "t", "v": 2}, {"n": "t", "t": 0.5, "v": 3}]
    decoded = decode(json.dumps(records).encode(), SENML)
    assert decoded.time == [-10_000, None, 500]
    assert decoded.relative == [0, 2]


def test_a_value_that_is_there_already_begins_another_message() -> None:
    assert both([{"n": "x", "v": 1}, {"n": "x", "v": 2}, {"n": "y", "v": 3}]) == [
        (None, {"x": 1, "y": 3}),
        (None, {"x": 2}),
    ]


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([], "an array of records"),
        ({}, "an array of records"),
        ([1], "record 0: an object"),
        ([{"bn": "a"}], "without any value"),
        ([{"v": 1}], "record 0: no name"),
        ([{"n": "a b", "v": 1}], "not made of letters"),
        ([{"n": "a", "v": "1"}], "record 0: v is no number"),
        ([{"n": "a", "v": 1}, {"n": "a", "v": 1, "vs": "x"}], "record 1: v and vs"),
        ([{"n": "a", "vb": 1}], "vb is neither"),
        ([{"n": "a", "vd": "!"}], "vd is not base64url"),
        ([{"n": "a", "bver": 11, "v": 1}], "bver 11 is newer"),
        ([{"n": "a", "v": 1, "must_": 2}], "must_ has to be understood"),
        ([{"n": "a", "v": 1, "t": 1e300}], "t is out of range"),
        ([{"n": "a", "bv": 1.7e308, "v": 1.7e308}], "out of range"),
        ([{"n": "a", "t": 1e9, "v": 1}, {"n": "a", "t": -1, "v": 1}], "some times count from now"),
    ],
)
def test_packs_that_cannot_be_read_say_why_and_in_which_record(records: Any, said: str) -> None:
    assert said in error(json.dumps(records).encode(), SENML).detail


def test_a_unit_that_is_not_the_networks_is_refused() -> None:
    spec = CodecSpec(codec="senml", units={"temp": "Cel"})
    assert "temp is in K" in error(b'[{"n":"temp","u":"K","v":290}]', spec).detail
    assert decode(b'[{"n":"temp","u":"Cel","v":20}]', spec).data == [b'{"temp":20}']


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "a_sum", "b"]), st.sampled_from(["v", "s", "sv"])), min_size=1, max_size=30
    )
)
def test_a_value_of_a_name_that_is_there_goes_to_the_first_message_without_it(records: list[tuple[str, str]]) -> None:
    expected: list[set[str]] = []
    pack = []
    for name, kinds in records:
        pack.append({"n": name} | dict.fromkeys(kinds, 1))
        names = {name + ("_sum" if kind == "s" else "") for kind in kinds}
        message = next((one for one in expected if not one & names), None)
        if message is None:
            expected.append(message := set())
        message |= names
    found = messages(json.dumps(pack).encode(), SENML)
    assert [set(one) for one in found] == expected


def test_thousands_of_values_of_one_name_are_as_many_messages_and_no_more_work_for_each() -> None:
    one = b'{"n":"a","v":1}'
    with steps_limit(150 * MESSAGES_PER_RECORD_MAX):
        decoded = decode(b"[" + b",".join([one] * MESSAGES_PER_RECORD_MAX) + b"]", SENML)
    assert len(decoded.data) == MESSAGES_PER_RECORD_MAX
    assert "more than 4096 messages" in error(b"[" + b",".join([one] * 10_000) + b"]", SENML).detail


def test_a_name_has_an_end() -> None:
    found = error(json.dumps([{"bn": "a" * 600, "v": 1}]).encode(), SENML)
    assert "record 0: a name of 600 characters; the limit is 512" in found.detail
