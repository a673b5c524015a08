from __future__ import annotations

from typing import get_args

import msgspec
import pytest

from protocols.errors import LimitError, MalformedError, VersionError, WireError
from protocols.limits import LINK_FRAME_BYTES_MAX
from protocols.messages import Anchor, Command, CommandState, Gap, GapKind, Lane, Priority
from sync.link import frames
from sync.link.frames import FrameType, Span, decode_frame, encode_frame
from tests.sync.link.blocks import BASE_MS, hello

ONE_OF_EACH: list[frames.Frame] = [
    hello(),
    frames.Welcome("demo", "quay-1", 1 << 23, BASE_MS, features=("x",)),
    frames.Blocks(3, Lane.BACKFILL, Priority.ALARM, (b"one", b"two")),
    frames.Accepted(3, (Span(2**63 - 1, 0, 5), Span(7, 9, 12)), 1 << 23),
    frames.Refused(3, 1, "checksum", "CRC-32 does not match"),
    frames.RegistryPart(0, 1, 100, b"zstd"),
    frames.RegistryAsk(12),
    frames.CommandDown(Command("c1", 5, "restart", b"\x00\xff", BASE_MS)),
    frames.CommandProgress("c1", CommandState.DELIVERED, "", BASE_MS),
    frames.Probe(1),
    frames.ProbeAnswer(1, BASE_MS, 1 << 23),
    frames.Goodbye("restart", "the cloud restarts", 5000),
    frames.Anchors(1, (Anchor(7, 60_000, BASE_MS, 12, "cloud"),)),
    frames.AnchorsKept(1),
    frames.Gaps(2, (Gap(7, 10, 20, GapKind.EVICTED, BASE_MS, BASE_MS + 5, BASE_MS + 9),)),
    frames.GapsKept(2, (Span(7, 12, 15),)),
    frames.Standing(
        BASE_MS,
        BASE_MS - 5,
        ((7, 30),),
        (Span(7, 20, 30),),
        (Span(7, 25, 30),),
        (("log-full", 3),),
        (frames.RefusedSample(BASE_MS, "demo", "pump-1", "oversized"),),
    ),
    frames.Holdings((Span(7, 0, 20),)),
    frames.Resend((Span(7, 3, 9),)),
    frames.Credit(1 << 23, 0),
    frames.CommandKept("c1", CommandState.SENT),
    frames.Configuration(BASE_MS, "[[mqtt]]"),
    frames.ConfigurationResult(BASE_MS, "no", "mend it", (frames.ListenerChange("mqtt", "rolled back", "taken"),)),
]


@pytest.mark.parametrize("frame", ONE_OF_EACH, ids=lambda frame: type(frame).__name__)
def test_a_frame_comes_out_as_it_went_in(frame: frames.Frame) -> None:
    assert decode_frame(encode_frame(frame)) == frame


def test_every_type_has_an_example_above() -> None:
    assert {type(frame) for frame in ONE_OF_EACH} == set(get_args(frames.Frame))
    assert len(FrameType) == len(ONE_OF_EACH)


def test_a_type_of_a_newer_version_is_passed_over() -> None:
    assert decode_frame(b"\x01\xc8" + msgspec.msgpack.encode([1, 2])) is None


def test_a_field_of_a_newer_version_is_passed_over_and_one_of_an_older_filled_in() -> None:
    assert decode_frame(b"\x01\x0a" + msgspec.msgpack.encode([7, "new"])) == frames.Probe(7)
    assert decode_frame(b"\x01\x0c" + msgspec.msgpack.encode(["stop", "why"])) == frames.Goodbye("stop", "why", 0)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", MalformedError),
        (b"\x01", MalformedError),
        (b"\x02\x0a\x91\x01", VersionError),
        (b"\x01\x0a", MalformedError),
        (b"\x01\x0a\x91\xff", MalformedError),
        (b"\x01\x0a" + msgspec.msgpack.encode(["one"]), MalformedError),
        (b"\x01\x04" + msgspec.msgpack.encode([1, [[7, -1, 3]], 0]), MalformedError),
        (bytes(LINK_FRAME_BYTES_MAX + 1), LimitError),
    ],
)
def test_what_is_no_frame_is_said_to_be_none(data: bytes, error: type[WireError]) -> None:
    with pytest.raises(error):
        decode_frame(data)


def test_a_frame_whose_text_is_not_utf8_is_malformed() -> None:
    with pytest.raises(MalformedError, match="HELLO frame"):
        decode_frame(bytes((1, FrameType.HELLO)) + b"\x96\xa6\x00\x00\x00\x00\x00\x80")


def test_a_frame_is_malformed_whose_fields_of_a_newer_version_are_nested_too_deeply() -> None:
    with pytest.raises(MalformedError, match="PROBE frame"):
        decode_frame(bytes((1, FrameType.PROBE)) + b"\x92\x07" + b"\x91" * 100_000 + b"\x90")


def test_a_frame_over_the_limit_is_not_made() -> None:
    with pytest.raises(LimitError):
        encode_frame(frames.Blocks(1, Lane.LIVE, Priority.TELEMETRY, (bytes(LINK_FRAME_BYTES_MAX),)))
