from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.mqtt import packets, wire
from protocols.mqtt.connect import (
    Connack,
    Connect,
    Will,
    decode_connack,
    decode_connect,
    encode_connack,
    encode_connect,
)
from protocols.mqtt.errors import IdentifierError, LevelError, MalformedPacketError, MqttError, ViolationError
from protocols.mqtt.packets import Ack, Disconnect, Publish, Subscribe, Subscription, Unsubscribe
from protocols.mqtt.properties import NO_PROPERTIES, In, Properties, decode_properties, encode_properties
from protocols.mqtt.reasons import CONNECT_CODES, Reason
from protocols.mqtt.wire import PUBACK, PUBCOMP, PUBREC, PUBREL, V5, V311, Reader

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
names = st.text(st.characters(codec="utf-8", exclude_characters="\0+#"), min_size=1, max_size=40)
packet_ids = st.integers(1, 65_535)
wills = st.builds(Will, names, st.binary(max_size=40), st.integers(0, 2), st.booleans())


versions = st.sampled_from([V311, V5])
words = st.integers(0, 65_535)
flags = st.integers(0, 1)
VALUES = {
    "payload_format": flags,
    "message_expiry_s": st.integers(0, 2**32 - 1),
    "content_type": texts,
    "response_topic": names,
    "correlation": st.binary(max_size=40),
    "session_expiry_s": st.integers(0, 2**32 - 1),
    "assigned_client_id": texts,
    "server_keep_alive_s": words,
    "auth_method": texts,
    "wants_problems": flags,
    "will_delay_s": st.integers(0, 2**32 - 1),
    "wants_response_information": flags,
    "response_information": texts,
    "server_reference": texts,
    "reason": texts,
    "receive_max": st.integers(1, 65_535),
    "topic_alias_max": words,
    "topic_alias": st.integers(1, 65_535),
    "qos_max": flags,
    "retain_available": flags,
    "user": st.lists(st.tuples(texts, texts), max_size=3).map(tuple),
    "packet_bytes_max": st.integers(1, 2**32 - 1),
    "wildcards_available": flags,
    "subscription_ids_available": flags,
    "shared_available": flags,
}
PLACES = {
    In.CONNECT: "session_expiry_s auth_method wants_problems wants_response_information receive_max topic_alias_max "
    "user packet_bytes_max",
    In.CONNACK: "session_expiry_s assigned_client_id server_keep_alive_s auth_method response_information "
    "server_reference reason receive_max topic_alias_max qos_max retain_available user packet_bytes_max "
    "wildcards_available subscription_ids_available shared_available",
    In.WILL: "payload_format message_expiry_s content_type response_topic correlation will_delay_s user",
    In.PUBLISH: "payload_format message_expiry_s content_type response_topic correlation topic_alias user",
    In.ACK: "reason user",
    In.SUBSCRIBE: "user",
    In.UNSUBSCRIBE: "user",
    In.DISCONNECT: "session_expiry_s server_reference reason user",
}


def properties_in(place: In) -> st.SearchStrategy[Properties]:
    """What the standard's table 2-4 allows in a packet."""
    fields = {name: st.none() | VALUES[name] for name in PLACES[place].split() if name != "user"}
    made = st.fixed_dictionaries(fields | {"user": VALUES["user"]}).map(lambda found: Properties(**found))
    return made.map(lambda properties: NO_PROPERTIES if properties == NO_PROPERTIES else properties)


@st.composite
def connects(draw: st.DrawFn) -> Connect:
    version = draw(versions)
    client_id = draw(texts)
    user_name = draw(st.none() | texts)
    password = draw(st.none() | st.binary(max_size=40)) if user_name is not None or version == V5 else None
    clean = True if not client_id and version == V311 else draw(st.booleans())
    will = draw(st.none() | wills)
    properties = NO_PROPERTIES
    if version == V5:
        properties = draw(properties_in(In.CONNECT))
        if will is not None:
            will = Will(will.topic, will.payload, will.qos, will.retain, draw(properties_in(In.WILL)))
    return Connect(client_id, clean, draw(words), user_name, password, will, version, properties)


@st.composite
def publishes(draw: st.DrawFn) -> tuple[Publish, int]:
    version = draw(versions)
    qos = draw(st.integers(0, 2))
    properties = draw(properties_in(In.PUBLISH)) if version == V5 else NO_PROPERTIES
    topic = "" if properties.topic_alias is not None and draw(st.booleans()) else draw(names)
    publish = Publish(
        topic,
        draw(st.binary(max_size=300)),
        qos,
        draw(packet_ids) if qos else 0,
        draw(st.booleans()),
        bool(qos) and draw(st.booleans()),
        properties,
    )
    return publish, version


def body(packet: bytes) -> bytes:
    """The packet without its fixed header, whose length must be right."""
    found = wire.remaining_length(packet, 1)
    assert found is not None
    length, start = found
    assert len(packet) == start + length
    return packet[start:]


@given(connects())
@pytest.mark.mqtt("3.1.1", "section 3.1.1", "section 3.1.3")
@pytest.mark.mqtt("5.0", "section 3.1.1", "section 3.1.3")
def test_connect_round_trip(connect: Connect) -> None:
    assert decode_connect(body(encode_connect(connect))) == connect


@given(publishes())
@pytest.mark.mqtt("3.1.1", "MQTT-2.3.1-5", "section 3.3.3")
@pytest.mark.mqtt("5.0", "MQTT-2.2.1-2", "section 3.3.3")
def test_publish_round_trip(made: tuple[Publish, int]) -> None:
    publish, version = made
    packet = packets.encode_publish(publish, version)
    assert packets.decode_publish(packet[0], body(packet), version) == publish


subscriptions = st.builds(Subscription, names, st.integers(0, 2), st.booleans(), st.booleans(), st.integers(0, 2))


@given(packet_ids, st.lists(subscriptions, min_size=1, max_size=5), versions, st.data())
@pytest.mark.mqtt("3.1.1", "section 3.8.3", "section 3.10.3")
@pytest.mark.mqtt("5.0", "section 3.8.2", "section 3.8.3", "section 3.10.2", "section 3.10.3")
def test_subscribe_and_unsubscribe_round_trip(
    packet_id: int, wanted: list[Subscription], version: int, data: st.DataObject
) -> None:
    wanted = [each for each in wanted if not each.topic_filter.startswith("$share")] or [Subscription("a")]
    if version == V311:
        wanted = [Subscription(each.topic_filter, each.qos) for each in wanted]
    properties = data.draw(properties_in(In.SUBSCRIBE)) if version == V5 else NO_PROPERTIES
    subscribe = Subscribe(packet_id, tuple(wanted), properties)
    assert packets.decode_subscribe(body(packets.encode_subscribe(subscribe, version)), version) == subscribe
    unsubscribe = Unsubscribe(packet_id, tuple(each.topic_filter for each in wanted), properties)
    assert packets.decode_unsubscribe(body(packets.encode_unsubscribe(unsubscribe, version)), version) == unsubscribe


@given(packet_ids, st.lists(st.sampled_from([0, 1, 2, 0x80]), min_size=1, max_size=5), versions)
@pytest.mark.mqtt("3.1.1", "section 3.9.2", "section 3.9.3")
@pytest.mark.mqtt("5.0", "section 3.9.2", "section 3.9.3")
def test_suback_round_trip(packet_id: int, codes: list[int], version: int) -> None:
    assert packets.decode_suback(body(packets.encode_suback(packet_id, codes, version)), version) == (packet_id, codes)


@given(st.sampled_from([PUBACK, PUBREC, PUBREL, PUBCOMP]), packet_ids, st.booleans(), properties_in(In.ACK), versions)
@pytest.mark.mqtt("3.1.1", "section 3.4.2", "section 3.5.2", "section 3.6.2", "section 3.7.2")
@pytest.mark.mqtt("5.0", "MQTT-3.4.2-1", "MQTT-3.5.2-1", "MQTT-3.6.2-1", "MQTT-3.7.2-1")
def test_acknowledgements_round_trip(
    kind: int, packet_id: int, is_refused: bool, properties: Properties, version: int
) -> None:
    refused = Reason.QUOTA_EXCEEDED if kind in (PUBACK, PUBREC) else Reason.PACKET_ID_NOT_FOUND
    ack = Ack(kind, packet_id, refused if is_refused else Reason.SUCCESS, properties)
    expected = ack if version == V5 else Ack(kind, packet_id)
    packet = packets.encode_ack(ack, version)
    assert packets.decode_ack(packet[0], body(packet), version) == expected
    assert packets.encode_acks(kind, [packet_id.to_bytes(2, "big")]) == packets.encode_ack(Ack(kind, packet_id), V5)


@given(st.sampled_from(Reason), st.booleans(), properties_in(In.CONNACK), versions)
@pytest.mark.mqtt("3.1.1", "section 3.2.2")
@pytest.mark.mqtt("5.0", "section 3.2.2")
def test_connack_round_trip(reason: Reason, present: bool, properties: Properties, version: int) -> None:
    packet = encode_connack(Connack(reason, present, properties), version)
    if version == V5:
        assert decode_connack(body(packet), V5) == Connack(reason, present, properties)
    elif reason in CONNECT_CODES:
        told = decode_connack(body(packet), V311)
        assert (CONNECT_CODES[told.reason], told.session_present) == (CONNECT_CODES[reason], present)
    else:
        assert packet == b""


@given(st.sampled_from(Reason), properties_in(In.DISCONNECT), versions)
@pytest.mark.mqtt("5.0", "section 3.14.2")
def test_disconnect_round_trip(reason: Reason, properties: Properties, version: int) -> None:
    disconnect = Disconnect(reason, properties)
    packet = packets.encode_disconnect(disconnect, version)
    expected = disconnect if version == V5 else Disconnect()
    assert packets.decode_disconnect(body(packet), version, by_server=True) == expected


@given(st.sampled_from(sorted(PLACES, key=lambda place: place.value)), st.data())
@pytest.mark.mqtt("5.0", "section 2.2.2", "MQTT-1.5.7-1", "section 1.5.6")
def test_properties_round_trip(place: In, data: st.DataObject) -> None:
    properties = data.draw(properties_in(place))
    reader = Reader(encode_properties(properties) + b"rest", "PACKET")
    assert decode_properties(reader, place) == properties
    assert reader.rest() == b"rest"


@given(st.binary(max_size=60), st.sampled_from(list(In)))
@pytest.mark.mqtt("5.0", "section 2.2.2")
def test_random_properties_give_typed_errors_only(data: bytes, place: In) -> None:
    with contextlib.suppress(MqttError):
        decode_properties(Reader(data, "PACKET"), place)


@pytest.mark.parametrize(
    ("encoded", "place", "reason", "said"),
    [
        ("0223 00", In.PUBLISH, Reason.MALFORMED_PACKET, "ends within its topic alias"),
        ("03230000", In.PUBLISH, Reason.TOPIC_ALIAS_INVALID, "topic alias 0"),
        ("0201 02", In.PUBLISH, Reason.PROTOCOL_ERROR, "payload format is 2"),
        ("0401 00 01 00", In.PUBLISH, Reason.PROTOCOL_ERROR, "payload format stands twice"),
        ("020b 01", In.PUBLISH, Reason.MALFORMED_PACKET, "property 0x0b"),
        ("020b 00", In.SUBSCRIBE, Reason.PROTOCOL_ERROR, "subscription ids is 0"),
        ("0321 0000", In.CONNECT, Reason.PROTOCOL_ERROR, "receive max is 0"),
        ("0527 00000000", In.CONNECT, Reason.PROTOCOL_ERROR, "packet bytes max is 0"),
        ("0416 0001 00", In.CONNECT, Reason.PROTOCOL_ERROR, "authentication data without a method"),
        ("0508 0002 752b", In.PUBLISH, Reason.TOPIC_NAME_INVALID, "response topic holds a wildcard"),
        ("02ff 00", In.PUBLISH, Reason.MALFORMED_PACKET, "property 0x7f"),
        ("ffff7f", In.PUBLISH, Reason.PACKET_TOO_LARGE, "the limit is 4,096"),
    ],
)
@pytest.mark.mqtt("5.0", "section 2.2.2", "MQTT-3.3.2-8", "MQTT-3.3.2-14", "MQTT-3.3.4-6", "section 3.1.2")
def test_a_property_against_the_standard_is_named(encoded: str, place: In, reason: Reason, said: str) -> None:
    with pytest.raises(MqttError) as caught:
        decode_properties(Reader(bytes.fromhex(encoded), "PACKET"), place)
    assert caught.value.reason is reason
    assert said in caught.value.detail


@pytest.mark.parametrize(
    ("length", "encoded"),
    [(0, "00"), (127, "7f"), (128, "8001"), (16_383, "ff7f"), (16_384, "808001"), (268_435_455, "ffffff7f")],
)
@pytest.mark.mqtt("3.1.1", "section 2.2.3")
@pytest.mark.mqtt("5.0", "section 1.5.5", "section 2.1.4")
def test_remaining_length_is_that_of_table_2_4(length: int, encoded: str) -> None:
    data = bytes.fromhex(encoded)
    assert wire.remaining_length(data, 0) == (length, len(data))
    assert wire.remaining_length(data[:-1], 0) is None


@pytest.mark.mqtt("3.1.1", "section 2.2.3")
@pytest.mark.mqtt("5.0", "section 1.5.5")
def test_remaining_length_of_five_bytes_is_malformed() -> None:
    with pytest.raises(MalformedPacketError, match=r"section 2\.2\.3"):
        wire.remaining_length(b"\x80\x80\x80\x80\x01", 0)


@pytest.mark.parametrize(
    ("change", "error", "clause"),
    [
        ({1: 3, 2: ord("X")}, MalformedPacketError, "MQTT-3.1.2-1"),
        ({6: 6}, LevelError, "MQTT-3.1.2-2"),
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
@pytest.mark.mqtt(
    "3.1.1",
    "MQTT-3.1.2-1",
    "MQTT-3.1.2-2",
    "MQTT-3.1.2-3",
    "MQTT-3.1.2-13",
    "MQTT-3.1.2-14",
    "MQTT-3.1.2-15",
    "MQTT-3.1.2-22",
    "MQTT-1.5.3-1",
    "MQTT-1.5.3-2",
)
def test_a_connect_against_the_standard_names_the_clause(
    change: dict[int, int], error: type[MqttError], clause: str
) -> None:
    data = bytearray(body(encode_connect(Connect("pump", True, 60, "pump", b"secret"))))
    for place, value in change.items():
        data[place] = value
    with pytest.raises(error) as caught:
        decode_connect(bytes(data))
    assert caught.value.clause == clause
    assert clause in caught.value.detail


def test_an_empty_client_id_needs_a_clean_start() -> None:
    assert decode_connect(body(encode_connect(Connect("")))).client_id == ""
    with pytest.raises(IdentifierError, match=r"MQTT-3\.1\.3-8"):
        decode_connect(body(encode_connect(Connect("", clean_start=False))))


@pytest.mark.mqtt("3.1.1", "MQTT-3.1.4-1")
def test_bytes_behind_the_last_field_are_malformed() -> None:
    with pytest.raises(MalformedPacketError, match="3 bytes behind"):
        decode_connect(body(encode_connect(Connect("a"))) + b"abc")


def test_mqtt_3_1_is_told_its_level_is_not_spoken() -> None:
    with pytest.raises(LevelError, match="level 3"):
        decode_connect(b"\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x01a")


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
@pytest.mark.mqtt("3.1.1", "MQTT-2.3.1-1", "MQTT-3.8.3-4", "MQTT-4.7.3-1", "MQTT-4.7.1-2", "MQTT-4.7.1-3")
def test_a_subscribe_against_the_standard_names_the_clause(data: bytes, clause: str) -> None:
    with pytest.raises(MqttError) as caught:
        packets.decode_subscribe(data, V311)
    assert caught.value.clause == clause


@pytest.mark.mqtt("3.1.1", "MQTT-3.8.3-3", "MQTT-3.10.3-2")
@pytest.mark.mqtt("5.0", "MQTT-3.8.3-2", "MQTT-3.10.3-2")
def test_subscribe_and_unsubscribe_without_a_filter_are_violations() -> None:
    with pytest.raises(ViolationError, match=r"MQTT-3\.8\.3-3"):
        packets.decode_subscribe(b"\x00\x01", V311)
    with pytest.raises(ViolationError, match=r"MQTT-3\.10\.3-2"):
        packets.decode_unsubscribe(b"\x00\x01", V311)


def test_the_password_is_not_in_the_repr() -> None:
    assert "gull" not in repr(Connect("pump", user_name="pump", password=b"gull"))
