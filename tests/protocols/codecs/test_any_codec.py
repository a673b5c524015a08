"""What holds of every codec: whatever comes, it gives messages or an error, and never harms a neighbour."""

from __future__ import annotations

import json
from typing import Final

import cbor2
import msgspec
import pytest

from protocols.codecs import CODECS, CodecSpec, Layout, LayoutBits, LayoutField, decoder_of
from protocols.codecs.check import check_spec, read_spec
from protocols.codecs.media import codec_of_content_format, codec_of_media_type
from protocols.codecs.registers import HOLDING, Block, Register, encode_map, encode_reading
from protocols.codecs.spec import SpecError
from protocols.limits import DECODED_BYTES_MIN, DECODED_RATIO_MAX, MESSAGES_PER_RECORD_MAX
from tests.fuzz.work import steps_limit
from tests.protocols.codecs.decoding import decode, error, messages

LAYOUT: Final = Layout(
    (
        LayoutField("n", "u8"),
        LayoutField("flags", "u8", bits=(LayoutBits("on", 0), LayoutBits("kind", 1, 3))),
        LayoutField("name", "string", "n"),
        LayoutField("s", "group", messages=True, repeat="end", fields=(LayoutField("v", "i16", scale=0.1),)),
    )
)
GOOD: Final[dict[str, bytes]] = {
    "json": b'{"a":1}',
    "envelope": b'{"data":{"a":1}}',
    "cbor": cbor2.dumps({"a": 1}),
    "messagepack": msgspec.msgpack.encode({"a": 1}),
    "senml": b'[{"n":"a","v":1}]',
    "csv": b"a\n1\n",
    "key-value": b"a=1",
    "cayenne-lpp": b"\1\0\1",
    "layout": b"\1\1x\0\1",
    "registers": encode_reading(
        [Block(HOLDING, 7, b"\0\1")], encode_map([Register(HOLDING, 7, LayoutField("a", "u16"))])
    ),
}


def spec_of(codec: str) -> CodecSpec:
    return CodecSpec(codec=codec, layout=LAYOUT if codec == "layout" else None)


def test_there_is_a_sample_of_every_codec() -> None:
    assert GOOD.keys() == CODECS.keys()


def test_messages_within_a_payload_share_what_stands_beside_them() -> None:
    spec = CodecSpec(alias_path="dev.id", time_path="dev.at", messages_path="samples")
    payload = b'{"dev":{"id":"p7","at":1770000000},"samples":[{"t":1},{"t":2,"dev":{"id":"p8","at":1770000060}}]}'
    decoded = decode(payload, spec)
    assert decoded.alias == ["p7", "p8"]
    assert decoded.time == [1_770_000_000_000, 1_770_000_060_000]
    assert json.loads(decoded.data[0]) == {"dev": {"id": "p7"}, "t": 1}
    assert "samples is missing" in error(b"{}", spec).detail
    assert "holds no array" in error(b'{"samples":[1]}', spec).detail
    assert "0 messages" in error(b'{"samples":[]}', spec).detail


def test_attributes_are_taken_from_their_paths_under_new_names() -> None:
    spec = CodecSpec(attributes={"temp": "readings.0.value", "unit": "readings.0.unit", "rssi": "radio.rssi"})
    payload = b'{"readings":[{"value":21.5,"unit":"C"}],"radio":{"rssi":-71},"time":1770000000,"noise":1}'
    decoded = decode(payload, spec)
    assert decoded.time == [1_770_000_000_000]
    assert json.loads(decoded.data[0]) == {"temp": 21.5, "unit": "C", "rssi": -71}
    assert "holds none of the attributes" in error(b'{"noise":1}', spec).detail


def test_lines_of_json_are_messages() -> None:
    assert messages(b'{"a":1}\n{"a":2}\n', CodecSpec()) == [{"a": 1}, {"a": 2}]
    assert error(b'{"a":1}\n{"a":', CodecSpec()).offset is not None


@pytest.mark.parametrize(
    ("settings", "value", "milliseconds", "relative"),
    [
        ({"time_unit": "s"}, 1_770_000_000.25, 1_770_000_000_250, False),
        ({"time_unit": "us"}, 1_770_000_000_123_500, 1_770_000_000_124, False),
        ({"time_unit": "s", "time_epoch": "2000-01-01T00:00:00Z"}, 60, 946_684_860_000, False),
        ({"time_unit": "s", "time_epoch": "ago"}, 90, -90_000, True),
        ({"time_unit": "ms", "time_epoch": "received"}, -5, -5, True),
        ({"time_zone": "+02:00"}, "2026-02-02T04:40:00", 1_770_000_000_000, False),
    ],
)
def test_times_in_units_and_from_epochs(
    settings: dict[str, str], value: object, milliseconds: int, relative: bool
) -> None:
    decoded = decode(json.dumps({"time": value}).encode(), CodecSpec(**settings))  # type: ignore[arg-type]
    assert decoded.time == [milliseconds]
    assert decoded.relative == ([0] if relative else [])


def test_what_a_payload_may_become_is_bounded_by_its_size() -> None:
    spec = CodecSpec(messages_path="s")
    payload = json.dumps({"big": "x" * 4000, "s": [{}] * (MESSAGES_PER_RECORD_MAX - 1)}).encode()
    found = error(payload, spec)
    assert f"more than {DECODED_RATIO_MAX} times its size" in found.detail
    assert DECODED_BYTES_MIN + DECODED_RATIO_MAX * len(payload) < 4000 * MESSAGES_PER_RECORD_MAX


@pytest.mark.parametrize("attributes", [{}, {"t": "t"}])
def test_what_stands_beside_many_messages_is_not_copied_for_each(attributes: dict[str, str]) -> None:
    spec = CodecSpec(time_path="dev.at", messages_path="s", attributes=attributes)
    beside = {"dev": {"at": 1_770_000_000, "more": list(range(20_000))}, "s": [{"t": 1}] * 4000}
    with steps_limit(400_000):
        decoded = decoder_of(spec)([json.dumps(beside).encode()])
    assert set(decoded.time) == ({1_770_000_000_000} if attributes else set())
    wide = {**{f"k{number}": number for number in range(20_000)}, "s": [{"t": 1}] * 4000}
    assert "times its size" in error(json.dumps(wide).encode(), spec).detail


def test_a_time_beside_messages_is_each_ones_that_has_none_and_stays_nowhere() -> None:
    spec = CodecSpec(time_path="dev.at", messages_path="s")
    payload = {"dev": {"at": 1_770_000_000, "id": 7}, "s": [{"t": 1}, {"dev": {"id": 8}}, {"dev.at": 1_770_000_060}]}
    decoded = decode(json.dumps(payload).encode(), spec)
    assert decoded.time == [1_770_000_000_000, None, 1_770_000_060_000]
    assert [json.loads(data) for data in decoded.data] == [
        {"dev": {"id": 7}, "t": 1}, {"dev": {"id": 8}}, {"dev": {"id": 7}},
    ]  # fmt: skip


def test_a_spec_that_this_version_cannot_read_rejects_and_does_not_raise() -> None:
    newer = decoder_of(CodecSpec(codec="protobuf"))([b"x"])
    assert newer.errors[0][1].detail == "no codec named 'protobuf' is known here"
    broken = decoder_of(CodecSpec(codec="layout", layout=Layout((LayoutField("a", "u7"),))))([b"x", b"y"])
    assert [place for place, _ in broken.errors] == [0, 1]
    assert "layout.fields[0].type" in broken.errors[0][1].detail


def test_a_spec_of_before_is_read_and_one_of_later_too() -> None:
    before = b'{"codec":"json","alias_path":"id","key_paths":["boot","seq"],"time_path":"at"}'
    assert msgspec.json.decode(before, type=CodecSpec) == CodecSpec("json", "id", ("boot", "seq"), "at")
    later = b'{"codec":"json","colour":"blue","layout":{"fields":[{"name":"a","shade":3}]}}'
    assert msgspec.json.decode(later, type=CodecSpec).layout == Layout((LayoutField("a"),))


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (b'{"codec":"morse"}', "codec"),
        (b'{"kodec":"json"}', "kodec"),
        (b'{"codec":"layout"}', "layout"),
        (b'{"codec":"layout","layout":{"fields":[{"name":"a","typ":"u8"}]}}', "layout.fields[0].typ"),
        (b'{"codec":"layout","layout":{"fields":[{"name":"a","type":"u9"}]}}', "layout.fields[0].type"),
        (b'{"codec":"layout","messages_path":"a","layout":{"fields":[{"name":"a"}]}}', "messages_path"),
        (b'{"key_paths":["a","","c"]}', "key_paths[1]"),
        (b'{"key_paths":["1","2","3","4","5","6","7","8","9"]}', "key_paths"),
        (b'{"attributes":{"a":""}}', "attributes.a"),
        (b'{"attributes":{"":"x"}}', "attributes"),
        (b'{"time_unit":"weeks"}', "time_unit"),
        (b'{"time_epoch":"2000-01-01"}', "time_unit"),
        (b'{"time_unit":"s","time_epoch":"then"}', "time_epoch"),
        (b'{"time_path":7}', "spec"),
        (b"[]", "spec"),
        (b"", "spec"),
    ],
)
def test_a_spec_that_cannot_work_is_refused_with_the_fields_name(text: bytes, field: str) -> None:
    with pytest.raises(SpecError) as refused:
        read_spec(text)
    assert refused.value.field == field


def test_a_spec_that_works_is_taken() -> None:
    for codec in CODECS:
        check_spec(spec_of(codec))
    assert read_spec(msgspec.json.encode(spec_of("layout"))) == spec_of("layout")


def test_media_types_and_content_formats_say_the_codec() -> None:
    assert codec_of_media_type("application/JSON; charset=utf-8") == "json"
    assert codec_of_media_type("application/senml+cbor") == "senml"
    assert codec_of_media_type("text/plain") == codec_of_media_type("") == ""
    assert [codec_of_content_format(number) for number in (50, 60, 110, 112, 0, 42, None)] == [
        "json", "cbor", "senml", "senml", "", "", "",
    ]  # fmt: skip
