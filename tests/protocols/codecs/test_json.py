"""The JSON codec and the REST server's envelope."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.codecs import CODECS, CodecSpec, Decoded
from protocols.ids import KeySpace

KEYED = CodecSpec(key_paths=("boot", "seq"))
scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    scalars | st.text(alphabet=st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=8,
)


def decode(payload: Any, spec: CodecSpec = KEYED, codec: str = "json") -> Decoded:
    raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return CODECS[codec](spec)([raw])


def reason(payload: Any, spec: CodecSpec = KEYED) -> str:
    decoded = decode(payload, spec)
    assert not decoded.data
    return decoded.errors[0][1].detail


@given(st.lists(st.dictionaries(st.text("xyz", min_size=1, max_size=3), values, max_size=4), min_size=1, max_size=5))
def test_data_comes_out_as_it_went_in_alone_and_in_company(items: list[dict[str, Any]]) -> None:
    payloads = [json.dumps(item).encode() for item in items]
    together = CODECS["json"](CodecSpec())(payloads)
    assert [json.loads(data) for data in together.data] == items
    assert together.place == list(range(len(items)))
    array = decode(items, CodecSpec())
    assert [json.loads(data) for data in array.data] == items
    assert array.index == list(range(len(items)))


def test_key_alias_and_time_are_found_by_their_paths() -> None:
    spec = CodecSpec(alias_path="meta.serial", key_paths=("meta.boot", "seq"), time_path="meta.at")
    decoded = decode({"meta": {"serial": "p-7", "boot": 3, "at": 1_770_000_000_000}, "seq": 9, "t": 1.5}, spec)
    assert (decoded.alias, decoded.key, decoded.time) == (["p-7"], [(3, 9)], [1_770_000_000_000])
    assert json.loads(decoded.data[0]) == {"meta": {"serial": "p-7", "boot": 3}, "seq": 9, "t": 1.5}


@pytest.mark.parametrize("payload", [{"boot": 1}, {"boot": 1, "seq": None}, {"boot": 1, "seq": [2]}, {"seq": 2}])
def test_an_incomplete_key_is_no_key(payload: dict[str, Any]) -> None:
    assert decode(payload).key == [None]


@pytest.mark.parametrize(
    ("given_time", "milliseconds"),
    [
        (1_770_000_000_123, 1_770_000_000_123),
        (1_770_000_000, 1_770_000_000_000),
        (1_770_000_000.5, 1_770_000_000_500),
        ("2026-02-02T02:40:00Z", 1_770_000_000_000),
        ("2026-02-02T03:40:00.250+01:00", 1_770_000_000_250),
        (0, 0),
        (None, None),
    ],
)
def test_times_of_every_kind(given_time: Any, milliseconds: int | None) -> None:
    assert decode({"time": given_time}).time == [milliseconds]


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'"text"', "this is a string"),
        (b"7", "this is a number"),
        (b"null", "this is null"),
        (b"[]", "0 messages"),
        (b"[1]", "this is a number"),
        (b'{"a":"\\u0000"}', "U+0000"),
        (b'{"time":"yesterday"}', "time is not a time: 'yesterday'"),
        (b'{"time":"2026-02-02T02:40:00"}', "no time zone"),
        (b'{"time":true}', "time is not a time"),
        (b'{"time":1e300}', "out of range"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "deeper than 32"),
        (b"[" * 100_000, "not JSON"),
        (b"[" + b"{}," * 4096 + b"{}]", "4097 messages"),
    ],
)
def test_what_cannot_be_read_says_why(payload: bytes, said: str) -> None:
    found = reason(payload)
    assert said in found or (payload.startswith(b"[[") and "deeper" in found)


def test_whole_numbers_of_any_size_stay_what_they_are() -> None:
    payload = b'{"boot":1,"seq":123456789012345678901234567890}'
    decoded = decode(payload)
    assert decoded.data == [payload]
    assert decoded.key[0] is not None
    assert len(KeySpace("p", "n", "k", "a").message_id(decoded.key[0])) == 16


def test_one_bad_message_of_a_payload_rejects_all_of_it() -> None:
    decoded = CODECS["json"](KEYED)([b'[{"a":1},{"time":"x"}]', b'{"a":2}'])
    assert decoded.data == [b'{"a":2}']
    assert decoded.place == [1]
    assert [place for place, _ in decoded.errors] == [0]


@pytest.mark.parametrize("alias", ["", None, 1.5, ["x"], "x" * 129])
def test_a_payload_that_must_name_its_device_and_does_not(alias: Any) -> None:
    assert "id" in reason({"id": alias}, CodecSpec(alias_path="id"))


def test_an_envelope_brings_its_own_id_and_time() -> None:
    body = {"data": {"boot": 1, "seq": 2, "v": 3}, "id": "abc", "time": "2026-02-02T02:40:00Z"}
    decoded = decode(body, codec="envelope")
    assert (decoded.key, decoded.time) == ([("id", "abc")], [1_770_000_000_000])
    plain = decode({"data": {"boot": 1, "seq": 2, "v": 3, "time": 1_770_000_000_000}}, codec="envelope")
    assert (plain.key, plain.time) == ([(1, 2)], [1_770_000_000_000])
    assert msgspec.json.decode(plain.data[0]) == {"boot": 1, "seq": 2, "v": 3}


@pytest.mark.parametrize("body", [b"{}", b'{"data":1}', b"nonsense", b'{"data":{},"time":"x"}'])
def test_a_bad_envelope_is_its_own_error(body: bytes) -> None:
    decoded = CODECS["envelope"](KEYED)([b'{"data":{"a":1}}', body])
    assert decoded.data == [b'{"a":1}']
    assert [place for place, _ in decoded.errors] == [1]
