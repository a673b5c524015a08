"""What devices and listeners say that is no measurement."""

from __future__ import annotations

import json

import pytest

from protocols.errors import DecodeError
from protocols.events import (
    COMMAND_ID_CHARACTERS_MAX,
    PRESENCE,
    RESPONSE,
    Presence,
    event_codec,
    event_decoder,
    read_presence,
    read_response,
)


@pytest.mark.parametrize(
    ("topic", "codec"),
    [
        ("up/response/c1", RESPONSE),
        ("up/response", RESPONSE),
        ("sensors/17/response/c1", RESPONSE),
        ("response", ""),
        ("up", ""),
        ("up/responses/c1", ""),
        ("up/response/c1/more", ""),
    ],
)
def test_a_topic_says_that_it_is_an_answer(topic: str, codec: str) -> None:
    assert event_codec(topic) == codec


@pytest.mark.parametrize(
    ("payload", "refusal"),
    [
        (b"", None),
        (b"done", None),
        (b"\xff\x00", None),
        (b'{"ok":true,"position":3}', None),
        (b'{"error":null}', None),
        (b'{"error":false}', None),
        (b'{"ok":false}', "the device says that it did not"),
        (b'{"error":""}', "the device says that it did not"),
        (b'{"error":"the valve is stuck"}', "the valve is stuck"),
        (b'{"error":{"code":4}}', '{"code":4}'),
    ],
)
def test_an_answer_is_yes_unless_it_says_no(payload: bytes, refusal: str | None) -> None:
    read = read_response("up/response/c1", payload)
    assert (read.command_id, read.refusal) == ("c1", refusal)


def test_an_answer_that_is_nested_too_deeply_is_one_that_says_nothing() -> None:
    deep = b'{"response":"c1","ok":' + b"[" * 100_000
    assert read_response("up/response/c1", deep).refusal is None
    for codec in (RESPONSE, PRESENCE):
        ((_, error),) = event_decoder(codec, "")([deep]).errors
        assert error.code == "undecodable"


def test_an_answer_names_its_command_in_the_payload_where_the_topic_does_not() -> None:
    assert read_response("up/response", b'{"response":"c1"}').command_id == "c1"
    assert read_response("", b'{"response":"c1"}').command_id == "c1"
    for payload in (b"", b"{}", b"[]", b'{"response":7}', b'{"response":""}'):
        with pytest.raises(DecodeError, match="names its command"):
            read_response("up/response", payload)
    with pytest.raises(DecodeError):
        read_response("up/response/" + (COMMAND_ID_CHARACTERS_MAX + 1) * "c", b"")


def test_presence_is_read() -> None:
    assert read_presence(b'{"online":true,"reason":"connected"}') == Presence(True, "connected")
    assert len(read_presence(json.dumps({"online": False, "reason": 1000 * "x"}).encode()).reason) == 200
    for payload in (b"", b"{}", b'{"online":1,"reason":""}'):
        with pytest.raises(DecodeError, match="no presence"):
            read_presence(payload)
