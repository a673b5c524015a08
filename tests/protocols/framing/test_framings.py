"""All framings, by one suite: what goes in comes out, however the line cuts it, and noise costs what it touches."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.framing import FramingSpec, make_framing
from protocols.framing.base import KEPT_BYTES_MAX, REJECTS_KEPT_MAX, Decoder, FrameError
from tests.fuzz.work import steps_limit

SPECS = {
    "line": FramingSpec("line", 40),
    "line, two bytes": FramingSpec("line", 40, delimiter="\r\n"),
    "line, odd": FramingSpec("line", 40, delimiter="aab"),
    "length 1": FramingSpec("length", 40, length_bytes=1),
    "length 2, little": FramingSpec("length", 40, byte_order="little"),
    "length 4, itself": FramingSpec("length", 40, length_bytes=4, counts_itself=True),
    "length, checked": FramingSpec("length", 40, checksum="CRC-16/MODBUS"),
    "cobs": FramingSpec("cobs", 40),
    "cobs, checked": FramingSpec("cobs", 40, checksum="CRC-32/ISO-HDLC"),
    "slip": FramingSpec("slip", 40),
    "slip, checked": FramingSpec("slip", 40, checksum="CRC-16/XMODEM", checksum_order="little"),
    "fixed": FramingSpec("fixed", size=7),
    "fixed, checked": FramingSpec("fixed", size=7, checksum="CRC-8/SMBUS"),
    "marked": FramingSpec("marked", 40, start="02", stop="0d0a"),
    "marked, checked": FramingSpec("marked", 40, start="02", stop="03", checksum="CRC-16/KERMIT"),
    "marked, two and two": FramingSpec("marked", 40, start="aa55", stop="55aa", checksum="CRC-32/CKSUM"),
    "marked, escaped": FramingSpec("marked", 40, start="02", stop="03", escape="10"),
    "hdlc": FramingSpec("marked", 40, start="7e", stop="7e", escape="7d", checksum="CRC-16/IBM-SDLC"),
}
FINDS_ITS_WAY = [name for name in SPECS if not name.startswith(("length", "fixed"))]
"""Those that need no silence to know again where frames begin."""

payloads = st.lists(
    st.binary(min_size=1, max_size=40) | st.text("\r\n\x02\x03ab", min_size=1, max_size=9).map(str.encode), max_size=8
)


def cut(data: bytes, places: list[int]) -> Iterator[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    for begin, end in itertools.pairwise(edges):
        yield data[begin:end]


def carried(name: str, payloads: list[bytes]) -> tuple[list[bytes], bytes]:
    """Those of them that the framing can carry, and what it makes of them."""
    framing, taken, line = make_framing(SPECS[name]), [], b""
    for payload in payloads:
        payload = (payload * 7)[:7] if name.startswith("fixed") else payload
        try:
            line += framing.encode(payload)
        except FrameError:
            continue
        taken.append(payload)
    return taken, line


def codes(decoder: Decoder) -> list[str]:
    rejects, more = decoder.take_rejects()
    return [reject.code for reject in rejects] + [code for code, count in more.items() for _ in range(count)]


@pytest.mark.parametrize("name", SPECS)
@settings(max_examples=40)
@given(payloads=payloads, places=st.lists(st.integers(0, 500), max_size=20))
def test_what_goes_in_comes_out_however_it_is_cut(name: str, payloads: list[bytes], places: list[int]) -> None:
    taken, line = carried(name, payloads)
    decoder = make_framing(SPECS[name]).decoder()
    found = [frame for read in cut(line, places) for frame in decoder.receive(read)]
    assert found == taken
    assert codes(decoder) == []
    decoder.idle()
    assert codes(decoder) == []


@pytest.mark.parametrize("name", SPECS)
@settings(max_examples=40)
@given(noise=st.binary(min_size=1, max_size=100), payloads=payloads)
def test_after_noise_and_a_silence_frames_come_as_before(name: str, noise: bytes, payloads: list[bytes]) -> None:
    taken, line = carried(name, payloads)
    decoder = make_framing(SPECS[name]).decoder()
    decoder.receive(noise)
    decoder.idle()
    assert decoder.receive(line) == taken


@pytest.mark.parametrize("name", FINDS_ITS_WAY)
@settings(max_examples=40)
@given(noise=st.binary(min_size=1, max_size=100))
def test_some_frames_after_noise_it_is_back_without_a_silence(name: str, noise: bytes) -> None:
    frame = make_framing(SPECS[name]).encode(b"payload")
    decoder = make_framing(SPECS[name]).decoder()
    decoder.receive(noise)
    found = [payload for _ in range(20) for payload in decoder.receive(frame)]
    assert found[-10:] == 10 * [b"payload"]


@pytest.mark.parametrize("name", SPECS)
def test_a_payload_that_does_not_fit_is_not_sent(name: str) -> None:
    framing = make_framing(SPECS[name])
    for payload in (b"", b"x" * 41):
        with pytest.raises(FrameError):
            framing.encode(payload)


@pytest.mark.parametrize("name", SPECS)
def test_half_a_frame_is_rejected_with_its_bytes_at_the_end(name: str) -> None:
    frame = make_framing(SPECS[name]).encode(b"payload")
    decoder = make_framing(SPECS[name]).decoder()
    assert decoder.receive(frame[:-2]) == []
    decoder.end()
    rejects, _ = decoder.take_rejects()
    assert [reject.code for reject in rejects] == ["half_frame"]
    assert frame[:-2].endswith(rejects[0].data)


@pytest.mark.parametrize("name", ["line", "cobs", "slip", "marked", "marked, escaped", "marked, checked", "hdlc"])
def test_a_frame_without_end_is_rejected_once_and_the_next_one_comes(name: str) -> None:
    framing = make_framing(SPECS[name])
    decoder, frame = framing.decoder(), framing.encode(b"payload")
    start = frame[: 1 if name.startswith(("marked", "hdlc", "slip")) else 0]
    assert decoder.receive(start + b"x" * 5_000) == []
    decoder.receive(b"x" * 5_000)
    found = decoder.receive(frame + frame + frame)
    assert found[-2:] == 2 * [b"payload"]
    rejects, _ = decoder.take_rejects()
    assert rejects[0].code == "oversize"
    assert "40 bytes" in rejects[0].detail
    assert len(rejects[0].data) <= KEPT_BYTES_MAX


@pytest.mark.parametrize("name", [name for name, spec in SPECS.items() if spec.checksum])
def test_a_frame_whose_checksum_is_another_is_rejected_with_its_bytes(name: str) -> None:
    framing = make_framing(SPECS[name])
    frame = framing.encode(b"payload")
    spoilt = frame.replace(b"l", b"k")
    decoder = framing.decoder()
    assert decoder.receive(spoilt + frame) == [b"payload"]
    rejects, _ = decoder.take_rejects()
    assert [reject.code for reject in rejects] == ["checksum"]
    assert b"paykoad" in rejects[0].data


def test_many_rejects_of_one_read_are_counted_and_the_first_ones_kept() -> None:
    decoder = make_framing(SPECS["slip"]).decoder()
    decoder.receive(b"\xdb\x00\xc0" * 100)
    rejects, more = decoder.take_rejects()
    assert (len(rejects), more) == (REJECTS_KEPT_MAX, {"escape": 100 - REJECTS_KEPT_MAX})
    assert decoder.take_rejects() == ([], {})


def test_a_silence_ends_a_frame_of_gap() -> None:
    framing = make_framing(FramingSpec("gap", 40, checksum="CRC-16/MODBUS"))
    decoder, frame = framing.decoder(), framing.encode(b"payload")
    assert [decoder.receive(frame[:3]), decoder.receive(frame[3:]), decoder.idle()] == [[], [], [b"payload"]]
    assert decoder.receive(b"x" * 50) == []
    assert (decoder.receive(frame), decoder.idle(), codes(decoder)) == ([], [], ["oversize"])
    decoder.receive(frame[:-1] + b"?")
    assert (decoder.idle(), codes(decoder)) == ([], ["checksum"])


def test_lengths_that_cannot_be_are_heard_no_more_until_a_silence() -> None:
    framing = make_framing(SPECS["length 2, little"])
    decoder, frame = framing.decoder(), framing.encode(b"payload")
    assert decoder.receive(b"\xff\xff" + frame) == []
    assert (decoder.is_lost, codes(decoder)) == (True, ["length"])
    assert decoder.receive(frame) == []
    decoder.idle()
    assert decoder.receive(frame) == [b"payload"]


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ({"kind": "line", "checksum": "CRC-16"}, "CRC-16/MODBUS"),
        ({"kind": "fixed"}, "size: required"),
        ({"kind": "marked"}, "start: 1 to 8 bytes in hex"),
        ({"kind": "marked", "start": "0g"}, "no bytes in hex"),
        ({"kind": "marked", "start": "02", "stop": "02"}, "needs an escape"),
        ({"kind": "marked", "start": "0202", "stop": "03", "escape": "10"}, "one byte each"),
        ({"kind": "marked", "start": "02", "stop": "03", "escape": "03"}, "must differ"),
        ({"kind": "marked", "start": "02", "stop": "22", "escape": "10"}, "must differ"),
    ],
)
def test_a_framing_that_makes_no_sense_says_why(setting: dict[str, str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        FramingSpec(**setting)  # type: ignore[arg-type]


def test_an_escape_before_what_it_never_stands_before_is_rejected() -> None:
    decoder = make_framing(SPECS["marked, escaped"]).decoder()
    assert decoder.receive(b"\x02a\x10b\x03" + b"\x02a\x10\x23b\x03") == [b"a\x03b"]
    assert codes(decoder) == ["escape"]


def test_a_stretch_that_holds_no_frame_is_told_once_however_it_is_cut() -> None:
    framing = make_framing(FramingSpec("marked", 40, start="02", stop="03"))
    line = b"\x02" * 500 + b"\x03" + framing.encode(b"good")
    whole, pieces = framing.decoder(), framing.decoder()
    assert whole.receive(line)[-1] == b"good"
    assert [frame for at in range(len(line)) for frame in pieces.receive(line[at : at + 1])][-1] == b"good"
    for decoder in (whole, pieces):
        rejects, more = decoder.take_rejects()
        assert ([reject.code for reject in rejects], more) == (["oversize"], {})


def test_noise_is_told_in_wholes_however_it_is_cut() -> None:
    framing = make_framing(FramingSpec("marked", 2000, start="02", stop="03"))
    whole, pieces = framing.decoder(), framing.decoder()
    whole.receive(5001 * b"x" + b"\x02")
    for _ in range(5001):
        pieces.receive(b"x")
    pieces.receive(b"\x02")
    for decoder in (whole, pieces):
        rejects, _ = decoder.take_rejects()
        assert [reject.detail.split()[0] for reject in rejects] == ["2,000", "2,000", "1,001"]


@pytest.mark.parametrize("false_starts", [1, 5, 12])
def test_a_frame_is_found_behind_starts_of_none(false_starts: int) -> None:
    framing = make_framing(FramingSpec("marked", start="02", stop="03", checksum="CRC-16/MODBUS"))
    frame = framing.encode(b"x" * 100)
    decoder = framing.decoder()
    assert decoder.receive(b"\x02" * false_starts + frame + frame) == 2 * [b"x" * 100]


def test_starts_without_end_cost_no_more_than_their_bytes_and_hide_no_frame_behind_them() -> None:
    framing = make_framing(FramingSpec("marked", start="02", stop="03", checksum="CRC-16/MODBUS"))
    frame = framing.encode(b"good")
    decoder = framing.decoder()
    with steps_limit(60 * 20_000):
        assert decoder.receive((b"\x02" * 2000 + b"\x03") * 10 + frame + frame)[-1:] == [b"good"]
