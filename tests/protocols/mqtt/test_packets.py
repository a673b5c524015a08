from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.mqtt import packets
from protocols.mqtt.errors import IdentifierError, LevelError, MalformedPacketError, MqttError, ViolationError
from protocols.mqtt.packets import Connect, ConnectCode, Publish, Will

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
names = st.text(st.characters(codec="utf-8", exclude_characters="\0+#"), min_size=1, max_size=40)
packet_ids = st.integers(1, 65_535)
wills = st.builds(Will, names, st.binary(max_size=40), st.integers(0, 2), st.booleans())


@st.composite
def connects(draw: st.DrawFn) -> Connect:
    client_id = draw(texts)
    user_name = draw(st.none() | texts)
    password = draw(st.none() | st.binary(max_size=40)) if user_name is not None else None
    clean = True if not client_id else draw(st.booleans())
    return Connect(client_id, clean, draw(st.integers(0, 65_535)), user_name, password, draw(st.none() | wills))


@st.composite
def publishes(draw: st.DrawFn) -> Publish:
    qos = draw(st.integers(0, 2))
    packet_id = draw(packet_ids) if qos else 0
    return Publish(
        draw(names),
        draw(st.binary(max_size=300)),
        qos,
        packet_id,
        draw(st.booleans()),
        bool(qos) and draw(st.booleans()),
    )


def body(packet: bytes) -> bytes:
    """The packet without its fixed header, whose length must be right."""
    found = packets.remaining_length(packet, 1)
    assert found is not None
    length, start = found
    assert len(packet) == start + length
    return packet[start:]


@given(connects())
def test_connect_round_trip(connect: Connect) -> None:
    assert packets.decode_connect(body(packets.encode_connect(connect))) == connect


@given(publishes())
def test_publish_round_trip(publish: Publish) -> None:
    packet = packets.encode_publish(publish)
    assert packets.decode_publish(packet[0], body(packet)) == publish


@given(packet_ids, st.lists(st.tuples(names, st.integers(0, 2)), min_size=1, max_size=5))
def test_subscribe_and_unsubscribe_round_trip(packet_id: int, filters: list[tuple[str, int]]) -> None:
    assert packets.decode_subscribe(body(packets.encode_subscribe(packet_id, filters))) == (packet_id, filters)
    only_names = [name for name, _ in filters]
    assert packets.decode_unsubscribe(body(packets.encode_unsubscribe(packet_id, only_names))) == (
        packet_id,
        only_names,
    )


@given(packet_ids, st.lists(st.sampled_from([0, 1, 2, 0x80]), min_size=1, max_size=5))
def test_acknowledgements_round_trip(packet_id: int, codes: list[int]) -> None:
    assert packets.decode_suback(body(packets.encode_suback(packet_id, codes))) == (packet_id, codes)
    assert packets.decode_packet_id(body(packets.encode_unsuback(packet_id)), "UNSUBACK") == packet_id
    puback = packets.encode_pubacks([packet_id.to_bytes(2, "big")])
    assert puback[0] == packets.PUBACK
    assert packets.decode_packet_id(body(puback), "PUBACK") == packet_id


@given(st.sampled_from(ConnectCode), st.booleans())
def test_connack_round_trip(code: ConnectCode, present: bool) -> None:
    assert packets.decode_connack(body(packets.encode_connack(code, session_present=present))) == (code, present)


@pytest.mark.parametrize(
    ("length", "encoded"),
    [(0, "00"), (127, "7f"), (128, "8001"), (16_383, "ff7f"), (16_384, "808001"), (268_435_455, "ffffff7f")],
)
def test_remaining_length_is_that_of_table_2_4(length: int, encoded: str) -> None:
    data = bytes.fromhex(encoded)
    assert packets.remaining_length(data, 0) == (length, len(data))
    assert packets.remaining_length(data[:-1], 0) is None


def test_remaining_length_of_five_bytes_is_malformed() -> None:
    with pytest.raises(MalformedPacketError, match=r"section 2\.2\.3"):
        packets.remaining_length(b"\x80\x80\x80\x80\x01", 0)


@pytest.mark.parametrize(
    ("change", "error", "clause"),
    [
        ({1: 3, 2: ord("X")}, MalformedPacketError, "MQTT-3.1.2-1"),
        ({6: 5}, LevelError, "MQTT-3.1.2-2"),
        ({6: 3}, LevelError, "MQTT-3.1.2-2"),
        ({7: 0b11000011}, MalformedPacketError, "MQTT-3.1.2-3"),
        ({7: 0b11001010}, MalformedPacketError, "MQTT-3.1.2-13"),
        ({7: 0b11100010}, MalformedPacketError, "MQTT-3.1.2-15"),
        ({7: 0b11011110}, MalformedPacketError, "MQTT-3.1.2-14"),
        ({7: 0b01000010}, MalformedPacketError, "MQTT-3.1.2-22"),
        ({12: 0}, MalformedPacketError, "MQTT-1.5.3-2"),
        ({12: 0xFF}, MalformedPacketError, "MQTT-1.5.3-1"),
        ({11: 200}, MalformedPacketError, "section 2.2.3"),
    ],
)
def test_a_connect_against_the_standard_names_the_clause(
    change: dict[int, int], error: type[MqttError], clause: str
) -> None:
    data = bytearray(body(packets.encode_connect(Connect("pump", True, 60, "pump", b"secret"))))
    for place, value in change.items():
        data[place] = value
    with pytest.raises(error) as caught:
        packets.decode_connect(bytes(data))
    assert caught.value.clause == clause
    assert clause in caught.value.detail


def test_an_empty_client_id_needs_a_clean_session() -> None:
    assert packets.decode_connect(body(packets.encode_connect(Connect("")))).client_id == ""
    with pytest.raises(IdentifierError, match=r"MQTT-3\.1\.3-8"):
        packets.decode_connect(body(packets.encode_connect(Connect("", clean_session=False))))


def test_bytes_behind_the_last_field_are_malformed() -> None:
    with pytest.raises(MalformedPacketError, match="3 bytes behind"):
        packets.decode_connect(body(packets.encode_connect(Connect("a"))) + b"abc")


def test_mqtt_3_1_is_told_its_level_is_not_spoken() -> None:
    with pytest.raises(LevelError, match="level 3"):
        packets.decode_connect(b"\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x01a")


@pytest.mark.parametrize(
    ("data", "clause"),
    [
        (b"\x00\x00\x00\x04down\x01", "MQTT-2.3.1-1"),
        (b"\x00\x01\x00\x04down\x03", "MQTT-3.8.3-4"),
        (b"\x00\x01\x00\x04down\x81", "MQTT-3.8.3-4"),
        (b"\x00\x01\x00\x04down", "section 2.2.3"),
        (b"\x00\x01\x00\x00\x00", "MQTT-4.7.3-1"),
        (b"\x00\x01\x00\x06down/\x00\x00", "MQTT-1.5.3-2"),
        (b"\x00\x01\x00\x05down#\x00", "MQTT-4.7.1-2"),
        (b"\x00\x01\x00\x03#/a\x00", "MQTT-4.7.1-2"),
        (b"\x00\x01\x00\x05down+\x00", "MQTT-4.7.1-3"),
    ],
)
def test_a_subscribe_against_the_standard_names_the_clause(data: bytes, clause: str) -> None:
    with pytest.raises(MqttError) as caught:
        packets.decode_subscribe(data)
    assert caught.value.clause == clause


def test_subscribe_and_unsubscribe_without_a_filter_are_violations() -> None:
    with pytest.raises(ViolationError, match=r"MQTT-3\.8\.3-3"):
        packets.decode_subscribe(b"\x00\x01")
    with pytest.raises(ViolationError, match=r"MQTT-3\.10\.3-2"):
        packets.decode_unsubscribe(b"\x00\x01")


def test_the_password_is_not_in_the_repr() -> None:
    assert "gull" not in repr(Connect("pump", user_name="pump", password=b"gull"))
