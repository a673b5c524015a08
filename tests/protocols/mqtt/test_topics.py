from __future__ import annotations

import pytest

from protocols.limits import TOPIC_BYTES_MAX
from protocols.mqtt.errors import MalformedPacketError, PacketLimitError
from protocols.mqtt.topics import decode_filter, decode_topic, is_own, matches


@pytest.mark.parametrize(
    ("topic_filter", "topic", "expected"),
    [  # the examples of sections 4.7.1 and 4.7.2
        ("sport/tennis/player1/#", "sport/tennis/player1", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/ranking", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
        ("sport/#", "sport", True),
        ("#", "sport/tennis", True),
        ("sport/tennis/+", "sport/tennis/player1", True),
        ("sport/tennis/+", "sport/tennis/player1/ranking", False),
        ("sport/+", "sport", False),
        ("sport/+", "sport/", True),
        ("+/+", "/finance", True),
        ("/+", "/finance", True),
        ("+", "/finance", False),
        ("#", "$SYS/monitor", False),
        ("+/monitor/Clients", "$SYS/monitor/Clients", False),
        ("$SYS/#", "$SYS/monitor", True),
        ("down", "down/reboot", False),
        ("Down", "down", False),
    ],
)
@pytest.mark.mqtt("3.1.1", "MQTT-4.7.1-1", "MQTT-4.7.2-1", "MQTT-4.7.3-4")
@pytest.mark.mqtt("5.0", "MQTT-4.7.0-1", "MQTT-4.7.2-1", "MQTT-4.7.3-4")
def test_filters_match_as_the_standard_says(topic_filter: str, topic: str, expected: bool) -> None:
    assert matches(topic_filter, topic) is expected


@pytest.mark.parametrize(
    ("topic_filter", "expected"),
    [
        ("down", True),
        ("down/#", True),
        ("down/+/now", True),
        ("#", False),
        ("+", False),
        ("+/reboot", False),
        ("up", False),
        ("downwards", False),
        ("/down", False),
    ],
)
def test_a_device_owns_what_is_below_down(topic_filter: str, expected: bool) -> None:
    assert is_own(topic_filter) is expected


@pytest.mark.parametrize("data", [b"", b"a+", b"a/#", b"a\0b", b"\xff", b"\xed\xa0\x80"])
@pytest.mark.mqtt(
    "3.1.1", "MQTT-3.3.2-1", "MQTT-3.3.2-2", "MQTT-4.7.3-1", "MQTT-4.7.3-2", "MQTT-1.5.3-1", "MQTT-1.5.3-2"
)
@pytest.mark.mqtt("5.0", "MQTT-3.3.2-1", "MQTT-3.3.2-2", "MQTT-4.7.3-1", "MQTT-4.7.3-2", "MQTT-1.5.4-1")
@pytest.mark.mqtt("5.0", "MQTT-1.5.4-2")
def test_a_topic_name_against_the_standard_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedPacketError):
        decode_topic(data)


@pytest.mark.mqtt("3.1.1", "MQTT-1.5.3-3")
@pytest.mark.mqtt("5.0", "MQTT-1.5.4-3")
def test_a_byte_order_mark_is_kept() -> None:
    assert decode_topic(b"\xef\xbb\xbfup") == "\ufeffup"


def test_a_topic_may_be_as_long_as_the_limit() -> None:
    assert len(decode_topic(b"a" * TOPIC_BYTES_MAX)) == TOPIC_BYTES_MAX
    with pytest.raises(PacketLimitError, match="the limit is 512"):
        decode_filter(b"a" * (TOPIC_BYTES_MAX + 1))
