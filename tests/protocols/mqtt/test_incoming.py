from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.limits import (
    MQTT_CONNECT_BYTES_MAX,
    MQTT_PACKET_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
)
from protocols.mqtt import wire
from protocols.mqtt.connect import Connack, Connect, Will, encode_connect
from protocols.mqtt.errors import (
    MalformedPacketError,
    MqttError,
    PacketLimitError,
    ViolationError,
)
from protocols.mqtt.incoming import Acks, Incoming, Item, Received, Run
from protocols.mqtt.packets import (
    Ack,
    Disconnect,
    Publish,
    Subscribe,
    Subscription,
    Unsubscribe,
    decode_publish,
    encode_ack,
    encode_acks,
    encode_publish,
    encode_subscribe,
    encode_unsubscribe,
)
from protocols.mqtt.properties import NO_PROPERTIES, Properties
from protocols.mqtt.reasons import Reason
from protocols.mqtt.wire import PUBACK, PUBREL, V5, encode_packet
from tests.fuzz.work import memory_of

CONNACK = b"\x20\x02\x00\x00"
ACCEPTED = Connack(Reason.SUCCESS)


def open_one() -> Incoming:
    one = Incoming()
    assert one.receive(encode_connect(Connect("pump", True, 60, "pump", b"secret"))).connect is not None
    assert one.accept(ACCEPTED) == CONNACK
    return one


def feed(one: Incoming, data: bytes, cuts: list[int]) -> tuple[list[object], bytes, str]:
    """All that the stream gave, whatever the cuts: each row of a run and each acknowledgement by itself, output, and
    the error."""
    items: list[object] = []
    output, error = b"", ""
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for start, stop in itertools.pairwise(edges):
        received = one.receive(data[start:stop])
        while True:
            items += [row for item in received.items for row in rows_of(item)]
            output += b"".join(received.output)
            error = error or (received.error.detail if received.error else "")
            if received.connect is None or received.error is not None:
                break
            output += one.accept(ACCEPTED)
            received = one.receive(b"")
    return items, output, error


def rows_of(item: Item) -> list[object]:
    match item:
        case Run():
            ids = item.packet_ids or [b""] * len(item.payloads)
            rest = (item.qos, item.retain, item.dup, item.properties)
            return [(item.topic, body, packet_id, *rest) for body, packet_id in zip(item.payloads, ids, strict=True)]
        case Acks():
            return [(item.kind, packet_id) for packet_id in item.packet_ids]
    return [item]


def runs_of(received: Received) -> list[Run]:
    return [item for item in received.items if isinstance(item, Run)]


published = st.builds(
    lambda topic, payload, packet_id, dup, retain: encode_publish(
        Publish(topic, payload, 1 if packet_id else 0, packet_id, retain, dup and packet_id > 0)
    ),
    st.sampled_from(["up", "up/fast", "ü"]),
    st.binary(max_size=200),
    st.integers(0, 65_535),
    st.booleans(),
    st.booleans(),
)
others = st.sampled_from(
    [
        wire.PINGREQ_PACKET,
        wire.DISCONNECT_PACKET,
        encode_subscribe(Subscribe(7, (Subscription("down/#", 1), Subscription("up")))),
        encode_unsubscribe(Unsubscribe(8, ("down/#",))),
        encode_acks(PUBACK, [b"\0\1"]),
        encode_acks(PUBREL, [b"\0\1", b"\0\2"]),
        encode_connect(Connect("again")),
        b"\xf0\x00",
        b"\x30\x80\x80\x80\x80\x01",
        encode_publish(Publish("up", b"two", 2, 1)),
    ]
)
streams = st.lists(st.one_of(published, published, published, others), max_size=12).map(
    lambda parts: encode_connect(Connect("pump", user_name="pump", password=b"secret")) + b"".join(parts)
)


@given(streams, st.lists(st.integers(0, 5000), max_size=20))
@pytest.mark.mqtt("3.1.1", "MQTT-4.2.0-1")
@pytest.mark.mqtt("5.0", "MQTT-4.2.0-1")
def test_any_cut_of_a_stream_gives_the_same(stream: bytes, cuts: list[int]) -> None:
    assert feed(Incoming(), stream, cuts) == feed(Incoming(), stream, [])


@given(streams)
def test_one_byte_at_a_time_gives_the_same(stream: bytes) -> None:
    assert feed(Incoming(), stream, list(range(len(stream)))) == feed(Incoming(), stream, [])


def publish_of(packet: bytes) -> Publish:
    found = wire.remaining_length(packet, 1)
    assert found is not None
    return decode_publish(packet[0], packet[found[1] :])


@given(st.lists(published, min_size=1, max_size=100))
def test_what_was_published_comes_out_in_order_and_whole(stream: list[bytes]) -> None:
    rows, output, error = feed(open_one(), b"".join(stream), [])
    expected = [publish_of(packet) for packet in stream]
    assert rows == [
        (p.topic, p.payload, p.packet_id.to_bytes(2, "big") if p.qos else b"", p.qos, p.retain, p.dup, p.properties)
        for p in expected
    ]
    assert (output, error) == (b"", "")


def test_publishes_of_one_topic_are_one_run() -> None:
    stream = b"".join(encode_publish(Publish("up", b"%d" % number, 1, number)) for number in range(1, 101))
    received = open_one().receive(stream)
    (run,) = runs_of(received)
    assert run.topic == "up"
    assert run.payloads == [b"%d" % number for number in range(1, 101)]
    assert encode_acks(PUBACK, run.packet_ids) == b"".join(b"\x40\x02" + n.to_bytes(2, "big") for n in range(1, 101))
    assert received.control == 0


def violating(data: bytes, *, one: Incoming | None = None) -> MqttError:
    received = (one or open_one()).receive(data)
    assert received.error is not None
    return received.error


@pytest.mark.parametrize(
    ("data", "kind", "clause"),
    [
        (b"\x30\xff\xff\xff\xff\x7f", MalformedPacketError, "section 2.2.3"),
        (b"\x30\xff\xff\xff\x7f", PacketLimitError, "section 2.2.3"),
        (b"\x00\x00", ViolationError, "section 2.2.1"),
        (b"\xf0\x00", ViolationError, "section 2.2.1"),
        (b"\x20\x02\x00\x00", ViolationError, "section 2.2.1"),
        (b"\x80\x02\x00\x01", MalformedPacketError, "MQTT-2.2.2-2"),
        (b"\xa0\x02\x00\x01", MalformedPacketError, "MQTT-2.2.2-2"),
        (b"\xc1\x00", MalformedPacketError, "MQTT-2.2.2-2"),
        (b"\xe8\x00", MalformedPacketError, "MQTT-2.2.2-2"),
        (b"\xc0\x01a", MalformedPacketError, "section 2.2.3"),
        (b"\x36\x06\x00\x02up\x00\x01", MalformedPacketError, "MQTT-3.3.1-4"),
        (b"\x38\x04\x00\x02up", MalformedPacketError, "MQTT-3.3.1-2"),
        (b"\x60\x02\x00\x01", MalformedPacketError, "MQTT-2.2.2-2"),
        (b"\x32\x06\x00\x02up\x00\x00", MalformedPacketError, "MQTT-2.3.1-1"),
        (b"\x32\x05\x00\x02up\x00", MalformedPacketError, "section 3.3.2.2"),
        (b"\x30\x01\x00", MalformedPacketError, "section 3.3.2.1"),
        (b"\x30\x03\x00\x02u", MalformedPacketError, "section 3.3.2.1"),
        (b"\x30\x02\x00\x00", MalformedPacketError, "MQTT-4.7.3-1"),
        (b"\x30\x04\x00\x02u+", MalformedPacketError, "MQTT-3.3.2-2"),
        (b"\x30\x04\x00\x02u\x00", MalformedPacketError, "MQTT-1.5.3-2"),
        (b"\x30\x04\x00\x02u\xff", MalformedPacketError, "MQTT-1.5.3-1"),
        (b"\x40\x02\x00\x00", MalformedPacketError, "MQTT-2.3.1-1"),
        (b"\x40\x01\x00", MalformedPacketError, "section 2.2.3"),
        (encode_connect(Connect("pump")), ViolationError, "MQTT-3.1.0-2"),
    ],
)
@pytest.mark.mqtt(
    "3.1.1",
    "MQTT-2.2.2-2",
    "MQTT-2.3.1-1",
    "MQTT-3.3.1-2",
    "MQTT-3.3.1-4",
    "MQTT-3.1.0-2",
    "MQTT-3.6.1-1",
    "MQTT-3.8.1-1",
    "MQTT-3.10.1-1",
    "MQTT-3.14.1-1",
    "MQTT-4.8.0-1",
    "section 2.2.1",
)
def test_a_packet_against_the_standard_ends_the_connection_and_names_the_clause(
    data: bytes, kind: type[MqttError], clause: str
) -> None:
    one = open_one()
    before = encode_publish(Publish("up", b"kept", 1, 9))
    received = one.receive(before + data + before)
    assert type(received.error) is kind
    assert received.error.clause == clause
    assert clause in received.error.detail
    assert [run.payloads for run in runs_of(received)] == [[b"kept"]]  # what came before it counts
    assert one.receive(before).items == []


@pytest.mark.parametrize(
    "data", [b"\x32\x05\x00\x02up\x00", b"\x30\x03\x00\x02u", b"\x32\x03\x00\x02u", b"\x32\x06\x00\x02up\x00\x00"]
)
def test_a_broken_publish_behind_a_good_one_of_the_same_topic_is_found(data: bytes) -> None:
    first = data[0]
    good = encode_publish(Publish("up", b"x", 1, 1) if first == 0x32 else Publish("up", b"x"))
    received = open_one().receive(good + data + b"p" * 8)  # what follows must not make it whole
    assert isinstance(received.error, MalformedPacketError)
    assert [run.payloads for run in runs_of(received)] == [[b"x"]]


@pytest.mark.parametrize("data", [b"\x30\x04\x00\x02u\xff", b"\x00\x00", b"\xc0\x00" * 5 + b"\xe0\x01\xff"])
def test_nothing_stays_behind_of_an_error(data: bytes) -> None:
    def receive_many() -> None:
        for _ in range(200):
            assert open_v5().receive(data + 5000 * b"x").error is not None

    assert memory_of(receive_many).kept < 100_000


@pytest.mark.parametrize("qos", [1, 2])
def test_a_publish_that_is_refused_leaves_no_identifier_in_the_run_before_it(qos: int) -> None:
    one, two = (encode_publish(Publish("up", b"x" * size, qos, 7)) for size in (1, PAYLOAD_BYTES_MAX + 1))
    received = open_one().receive(one + two)
    assert isinstance(received.error, PacketLimitError)
    properties = Properties(user=(("a", "b"),))
    one, two = (encode_publish(Publish("up", b"", qos, 7, properties=properties), V5) for _ in range(2))
    cut_off = two[:1] + bytes((two[1] - 1,)) + two[2:]
    broken = open_v5().receive(one + cut_off + b"p" * 8)
    assert isinstance(broken.error, MalformedPacketError)
    for run in (*runs_of(received), *runs_of(broken)):
        assert (len(run.payloads), len(run.packet_ids)) == (1, 1)


@pytest.mark.parametrize("before", [b"", wire.PINGREQ_PACKET, encode_publish(Publish("up", b"x"))])
@pytest.mark.parametrize("data", [b"\x00\x00", b"\x00\x03abc", b"\x01\x00"])
def test_a_packet_of_the_reserved_type_is_found_wherever_it_stands(before: bytes, data: bytes) -> None:
    assert violating(before + data).clause == "section 2.2.1"


def test_what_stands_behind_a_connect_says_nothing_of_its_version() -> None:
    received = Incoming().receive(b"\x10\x00" + 6 * b"x" + b"\x05")
    assert isinstance(received.error, MalformedPacketError)
    assert received.output == []


@pytest.mark.parametrize("data", [b"\x30\x04\x00\x02up", b"GET / HTTP/1.1\r\n", b"\xc0\x00", b"\x16\x03\x01"])
@pytest.mark.mqtt("3.1.1", "MQTT-3.1.0-1")
@pytest.mark.mqtt("5.0", "MQTT-3.1.0-1")
def test_anything_before_connect_ends_the_connection(data: bytes) -> None:
    error = violating(data, one=Incoming())
    assert error.clause == "MQTT-3.1.0-1"


@pytest.mark.mqtt("3.1.1", "MQTT-3.1.2-2")
def test_another_protocol_level_is_answered_with_its_return_code() -> None:
    data = encode_connect(Connect("pump")).replace(b"MQTT\x04", b"MQTT\x06")
    received = Incoming().receive(data)
    assert received.output == [b"\x20\x02\x00\x01"]
    assert received.error is not None
    assert received.error.code == "protocol_level"
    assert received.connect is None


def test_an_empty_client_id_without_clean_session_is_answered_with_its_return_code() -> None:
    received = Incoming().receive(encode_connect(Connect("", clean_start=False)))
    assert received.output == [b"\x20\x02\x00\x02"]
    assert received.error is not None
    assert received.error.clause == "MQTT-3.1.3-8"


def test_a_connect_larger_than_its_limit_is_refused_before_it_is_whole() -> None:
    head = encode_packet(wire.CONNECT, b"x" * (MQTT_CONNECT_BYTES_MAX + 1))[:3]
    assert isinstance(violating(head, one=Incoming()), PacketLimitError)


def test_the_largest_payload_is_taken_and_one_byte_more_is_refused() -> None:
    one = open_one()
    largest = encode_publish(Publish("up", b"x" * PAYLOAD_BYTES_MAX, 1, 1))
    rows, _, error = feed(one, largest, [1000, 200_000])
    assert (len(rows), error) == (1, "")
    more = violating(encode_publish(Publish("up", b"x" * (PAYLOAD_BYTES_MAX + 1), 1, 1)))
    assert "the limit is 262,144" in more.detail
    head = encode_packet(wire.PUBLISH, b"x" * (MQTT_PACKET_BYTES_MAX + 1))[:4]
    assert isinstance(violating(head), PacketLimitError)


def test_held_bytes_never_exceed_one_packet() -> None:
    one = open_one()
    packet = encode_publish(Publish("up", b"x" * PAYLOAD_BYTES_MAX, 1, 1))
    for _ in range(3):
        one.receive(packet[:-1])
        assert one.held_bytes == len(packet) - 1
        assert len(one.receive(packet[-1:]).items) == 1
        assert one.held_bytes == 0


@pytest.mark.timeout(2)  # takes 0.1 s; 3 s where each byte copies what is held
def test_a_packet_that_trickles_in_costs_no_more_than_its_length() -> None:
    one = open_one()
    packet = encode_publish(Publish("up", b"x" * PAYLOAD_BYTES_MAX, 1, 1))
    runs = [run for place in range(len(packet)) for run in runs_of(one.receive(packet[place : place + 1]))]
    assert [len(run.payloads) for run in runs] == [1]


@pytest.mark.mqtt("3.1.1", "MQTT-3.2.0-1", "MQTT-3.12.4-1", "section 3.13")
@pytest.mark.mqtt("5.0", "MQTT-3.2.0-1", "MQTT-3.12.4-1", "section 3.13")
def test_nothing_is_read_between_connect_and_its_answer() -> None:
    one = Incoming()
    received = one.receive(encode_connect(Connect("pump", user_name="a", password=b"b")) + wire.PINGREQ_PACKET)
    assert received.connect == Connect("pump", user_name="a", password=b"b")
    assert received.output == []
    one.accept(ACCEPTED)
    assert one.receive(b"").output == [wire.PINGRESP_PACKET]
    assert one.connect is not None
    assert one.connect.password is None  # no longer needed, so no longer kept


@pytest.mark.mqtt("3.1.1", "MQTT-3.1.4-5")
@pytest.mark.mqtt("5.0", "MQTT-3.1.4-6")
def test_what_follows_a_refused_connect_is_dropped() -> None:
    one = Incoming()
    one.receive(encode_connect(Connect("pump")) + encode_publish(Publish("up", b"x")))
    assert one.refuse(Connack(Reason.NOT_AUTHORIZED)) == b"\x20\x02\x00\x05"
    assert one.receive(b"") == Received([])


@pytest.mark.parametrize(("keep_alive_s", "silence_s"), [(0, None), (1, 1.5), (60, 90.0)])
@pytest.mark.mqtt("3.1.1", "MQTT-3.1.2-24")
@pytest.mark.mqtt("5.0", "MQTT-3.1.2-22")
def test_silence_is_allowed_for_one_and_a_half_keep_alives(keep_alive_s: int, silence_s: float | None) -> None:
    one = Incoming()
    one.receive(encode_connect(Connect("pump", keep_alive_s=keep_alive_s)))
    assert one.silence_max_s == silence_s


@pytest.mark.mqtt("3.1.1", "MQTT-3.1.2-8", "MQTT-3.1.2-9")
@pytest.mark.mqtt("5.0", "MQTT-3.1.2-7", "MQTT-3.1.2-9")
def test_a_will_is_kept_with_the_connect() -> None:
    will = Will("up/gone", b"bye", 1, True)
    one = Incoming()
    one.receive(encode_connect(Connect("pump", will=will)))
    one.accept(ACCEPTED)
    assert one.connect is not None
    assert one.connect.will == will


@pytest.mark.mqtt("3.1.1", "MQTT-3.14.4-1", "MQTT-3.14.4-2")
@pytest.mark.mqtt("5.0", "MQTT-3.14.4-1", "MQTT-3.14.4-2")
def test_disconnect_ends_the_connection_and_what_follows_is_ignored() -> None:
    received = open_one().receive(wire.DISCONNECT_PACKET + b"\xff\xff")
    assert received.items == [Disconnect()]
    assert received.error is None


def test_a_retained_publish_is_taken_like_another() -> None:
    (run,) = runs_of(open_one().receive(encode_publish(Publish("up", b"x", 1, 1, retain=True))))
    assert (run.payloads, run.retain) == ([b"x"], True)


# ---- MQTT 5


def open_v5() -> Incoming:
    one = Incoming()
    assert one.receive(encode_connect(Connect("pump", version=V5))).connect is not None
    one.accept(ACCEPTED)
    return one


PROPERTIES = [
    NO_PROPERTIES,
    Properties(user=(("a", "b"),)),
    Properties(topic_alias=3),
    Properties(message_expiry_s=9, correlation=b"c"),
]
published_v5 = st.builds(
    lambda topic, payload, packet_id, qos, properties: encode_publish(
        Publish(topic, payload, qos if packet_id else 0, packet_id, properties=properties), V5
    ),
    st.sampled_from(["up", "up/fast"]),
    st.binary(max_size=100),
    st.integers(0, 65_535),
    st.integers(1, 2),
    st.sampled_from(PROPERTIES),
)
aliased = encode_publish(Publish("", b"by alias", properties=Properties(topic_alias=3)), V5)
others_v5 = st.sampled_from(
    [
        aliased,
        wire.PINGREQ_PACKET,
        encode_ack(Ack(PUBREL, 5, Reason.PACKET_ID_NOT_FOUND), V5),
        encode_acks(PUBACK, [b"\0\1"]),
        encode_subscribe(Subscribe(7, (Subscription("down/#", 1),), Properties(subscription_ids=(5,))), V5),
        b"\xe0\x01\x04",
        b"\xe0\x01\x03",
        b"\xf0\x00",
    ]
)
streams_v5 = st.lists(st.one_of(published_v5, published_v5, others_v5), max_size=12).map(
    lambda parts: encode_connect(Connect("pump", version=V5)) + b"".join(parts)
)


@given(streams_v5, st.lists(st.integers(0, 5000), max_size=20))
@pytest.mark.mqtt("5.0", "MQTT-4.2.0-1")
def test_any_cut_of_a_stream_of_mqtt_5_gives_the_same(stream: bytes, cuts: list[int]) -> None:
    assert feed(Incoming(), stream, cuts) == feed(Incoming(), stream, [])


@given(st.lists(published_v5, min_size=1, max_size=50))
def test_what_was_published_with_mqtt_5_comes_out_in_order_and_whole(stream: list[bytes]) -> None:
    rows, _, error = feed(open_v5(), b"".join(stream), [])
    expected = [decode_publish(packet[0], packet[2:], V5) for packet in stream if len(packet) < 130]
    if len(expected) == len(stream):
        assert rows == [
            (p.topic, p.payload, p.packet_id.to_bytes(2, "big") if p.qos else b"", p.qos, p.retain, p.dup, p.properties)
            for p in expected
        ]
    assert error == ""


def test_alike_publishes_of_mqtt_5_are_one_run_and_others_begin_a_new_one() -> None:
    one = Properties(user=(("site", "quay"),))
    two = Properties(user=(("site", "pier"),))
    stream = b"".join(
        encode_publish(Publish("up", b"%d" % number, 1, number + 1, properties=properties), V5)
        for number, properties in enumerate([one, one, two, NO_PROPERTIES, NO_PROPERTIES])
    )
    runs = runs_of(open_v5().receive(stream))
    assert [(run.properties, run.payloads) for run in runs] == [
        (one, [b"0", b"1"]), (two, [b"2"]), (NO_PROPERTIES, [b"3", b"4"]),
    ]  # fmt: skip


def test_properties_that_reach_into_the_next_packet_are_malformed() -> None:
    good = encode_publish(Publish("up", b"", 1, 1, properties=Properties(user=(("a", "b"),))), V5)
    short = b"\x32" + bytes((len(good) - 5,)) + good[2:-3]
    received = open_v5().receive(good + short + b"\x00\x01b" + good)
    assert isinstance(received.error, MalformedPacketError)


@pytest.mark.mqtt("5.0", "section 3.15", "MQTT-4.12.0-7")
def test_auth_without_a_method_is_a_violation() -> None:
    error = violating(b"\xf0\x00", one=open_v5())
    assert (type(error), error.reason) == (ViolationError, Reason.PROTOCOL_ERROR)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x60\x02\x00\x01", Reason.MALFORMED_PACKET),
        (b"\x80\x02\x00\x01", Reason.MALFORMED_PACKET),
        (b"\xa0\x02\x00\x01", Reason.MALFORMED_PACKET),
        (b"\xe1\x00", Reason.MALFORMED_PACKET),
        (b"\xf1\x00", Reason.MALFORMED_PACKET),
        (b"\x36\x07\x00\x02up\x00\x01\x00", Reason.MALFORMED_PACKET),
        (b"\x38\x05\x00\x02up\x00", Reason.MALFORMED_PACKET),
        (b"\x32\x07\x00\x02up\x00\x00\x00", Reason.MALFORMED_PACKET),
        (b"\x40\x03\x00\x01\x01", Reason.PROTOCOL_ERROR),
        (b"\xe0\x01\x8b", Reason.PROTOCOL_ERROR),
        (b"\x82\x08\x00\x01\x00\x00\x02up\x40", Reason.MALFORMED_PACKET),
        (b"\x82\x08\x00\x01\x00\x00\x02up\x30", Reason.PROTOCOL_ERROR),
        (encode_connect(Connect("pump", version=V5)), Reason.PROTOCOL_ERROR),
    ],
)
@pytest.mark.mqtt("5.0", "MQTT-2.1.3-1", "MQTT-2.2.1-3", "MQTT-3.1.0-2", "MQTT-3.3.1-2", "MQTT-3.3.1-4")
@pytest.mark.mqtt("5.0", "section 2.4")
@pytest.mark.mqtt("5.0", "MQTT-3.6.1-1", "MQTT-3.8.1-1", "MQTT-3.8.3-5", "MQTT-3.10.1-1", "MQTT-3.14.1-1")
@pytest.mark.mqtt("5.0", "MQTT-3.15.1-1", "MQTT-3.14.2-1")
def test_a_packet_of_mqtt_5_against_the_standard_has_its_reason(data: bytes, reason: Reason) -> None:
    assert violating(data, one=open_v5()).reason is reason
