"""CoAP messages: round trips, format errors, and another implementation's view of the same bytes."""

from __future__ import annotations

import aiocoap
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.coap.message import BadOptionError, Block, Message, check_options, decode, peek, uint
from protocols.coap.numbers import Code, Kind, Option
from protocols.errors import MalformedError

OPTIONS = st.lists(st.tuples(st.integers(0, 65_535), st.binary(max_size=300)), max_size=8).map(
    lambda found: tuple(sorted(found, key=lambda option: option[0]))
)
MESSAGES = st.builds(
    Message,
    kind=st.integers(0, 3),
    code=st.integers(1, 255),
    message_id=st.integers(0, 65_535),
    token=st.binary(max_size=8),
    options=OPTIONS,
    payload=st.binary(max_size=100),
)


@given(MESSAGES)
def test_what_is_encoded_is_decoded(message: Message) -> None:
    assert decode(message.encode()) == message


def test_another_implementation_reads_and_writes_the_same() -> None:
    theirs = aiocoap.Message(code=aiocoap.POST, payload=b"21.5", _mid=0x1234, _mtype=aiocoap.CON, _token=b"ab")
    theirs.opt.uri_path = ("sensors", "7", "up")
    theirs.opt.content_format = 60
    theirs.opt.size1 = 70_000
    ours = decode(theirs.encode())
    assert (ours.kind, ours.code, ours.message_id, ours.token) == (Kind.CONFIRMABLE, Code.POST, 0x1234, b"ab")
    assert ours.texts(Option.URI_PATH) == ["sensors", "7", "up"]
    assert (ours.number(Option.CONTENT_FORMAT), ours.number(Option.SIZE1)) == (60, 70_000)
    assert ours.encode() == theirs.encode()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "0 bytes"),
        (b"\x00\x01\x00\x01", "version 0"),
        (b"\x49\x01\x00\x01" + 9 * b"t", "a token of 9 bytes"),
        (b"\x44\x01\x00\x01tt", "a token of 4 bytes in a message of 6"),
        (b"\x40\x00\x00\x01x", "an empty message"),
        (b"\x40\x01\x00\x01\xff", "no payload"),
        (b"\x40\x01\x00\x01\xb5ab", "option 11 of 5 bytes, of which 2 are there"),
        (b"\x40\x01\x00\x01\xf0", "reserved length 15"),
        (b"\x40\x01\x00\x01\x1e\x00", "ends before its length"),
        (b"\x40\x01\x00\x01" + 65 * b"\x10", "more than 64 options"),
        (b"\x40\x01\x00\x01\xe0\xff\xff", "the highest is 65,535"),
    ],
)
def test_a_format_error_says_what_is_wrong(data: bytes, reason: str) -> None:
    with pytest.raises(MalformedError, match=reason):
        decode(data)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (((5, b""),), "option 5 is not known"),
        (((Option.BLOCK1, b"1234"),), "BLOCK1 of 4 bytes; it has 0 to 3"),
        (((Option.ACCEPT, b"1"), (Option.ACCEPT, b"2")), "ACCEPT stands twice"),
    ],
)
def test_a_critical_option_must_be_heeded(options: tuple[tuple[int, bytes], ...], reason: str) -> None:
    with pytest.raises(BadOptionError, match=reason):
        check_options(Message(0, Code.POST, 1, options=options))


def test_elective_options_and_those_that_may_stand_twice_are_no_harm() -> None:
    path = ((Option.URI_PATH, b"a"), (Option.URI_PATH, b"b"))
    check_options(Message(0, Code.POST, 1, options=(*path, (2048, b"x"), (2048, b"y"))))


def test_blocks() -> None:
    block = Block(5, True, 6)
    message = Message(0, Code.POST, 1, options=((Option.BLOCK1, block.encode()),))
    assert message.block(Option.BLOCK1) == block
    assert (block.size, block.start) == (1024, 5120)
    with pytest.raises(MalformedError, match="reserved size 7"):
        Message(0, Code.POST, 1, options=((Option.BLOCK1, uint(7)),)).block(Option.BLOCK1)


def test_what_is_answered_unread() -> None:
    assert peek(b"\x42\x02\x01\x02ab\xff") == (2, 0x0102, b"ab")
    assert [peek(data) for data in (b"\x40", b"\x50\x02\x00\x01", b"\x4f\x02\x00\x01")] == [None, None, None]
