"""The client's packets, against bytes worked out by hand from the standard."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_sim.devices.packets import (
    ConnAck,
    PacketReader,
    PingResp,
    ProtocolError,
    PubAck,
    encode_connect,
    encode_publish,
)


def test_connect_carries_name_and_password_and_asks_for_a_session_that_stays() -> None:
    packet = encode_connect(client_id="p-1", user="p-1", password="k3v9", keep_alive_s=30)
    assert packet == b"\x10\x1a\x00\x04MQTT\x04\xc0\x00\x1e\x00\x03p-1\x00\x03p-1\x00\x04k3v9"


def test_connect_without_credentials() -> None:
    packet = encode_connect(client_id="x", user="", password="", keep_alive_s=5, clean=True)
    assert packet == b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x05\x00\x01x"


def test_publish_of_both_qualities() -> None:
    assert encode_publish(b"up", b"{}") == b"\x30\x06\x00\x02up{}"
    assert encode_publish(b"up", b"{}", packet_id=258) == b"\x32\x08\x00\x02up\x01\x02{}"
    assert encode_publish(b"up", b"{}", packet_id=258, again=True) == b"\x3a\x08\x00\x02up\x01\x02{}"


@pytest.mark.parametrize(
    ("payload_bytes", "length"), [(121, b"\x7f"), (122, b"\x80\x01"), (16_377, b"\xff\x7f"), (16_378, b"\x80\x80\x01")]
)
def test_remaining_length_at_its_steps(payload_bytes: int, length: bytes) -> None:
    packet = encode_publish(b"up", bytes(payload_bytes), packet_id=1)
    assert packet[1 : 1 + len(length)] == length
    assert len(packet) == 1 + len(length) + 6 + payload_bytes


@given(st.lists(st.sampled_from([b"\x20\x02\x00\x00", b"\x40\x02\x01\x02", b"\xd0\x00"])), st.data())
def test_packets_are_the_same_however_the_bytes_are_cut(packets: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(packets)
    wanted = {0x20: ConnAck(0, False), 0x40: PubAck(258), 0xD0: PingResp()}
    reader, found = PacketReader(), []
    at = 0
    while at < len(stream):
        size = data.draw(st.integers(1, len(stream) - at))
        found += reader.feed(stream[at : at + size])
        at += size
    assert found == [wanted[packet[0]] for packet in packets]


@pytest.mark.parametrize(
    "packet",
    [
        b"\x40\x03\x00\x01\x00",  # PUBACK of three bytes
        b"\x41\x02\x00\x01",  # reserved flags
        b"\x20\x02\x02\x00",  # CONNACK with reserved bits
        b"\xd0\x01\x00",  # PINGRESP with a body
        b"\x30\x05\x00\x01ahi",  # PUBLISH to a device that subscribed to nothing
        b"\x40\xff\xff\xff\x7f",  # a length that would make us wait for 256 MB
    ],
)
def test_what_a_server_may_not_send_ends_the_connection(packet: bytes) -> None:
    with pytest.raises(ProtocolError):
        PacketReader().feed(packet)


def test_a_refusal_keeps_its_code() -> None:
    assert PacketReader().feed(b"\x20\x02\x00\x05") == [ConnAck(5, False)]
    assert PacketReader().feed(b"\x20\x02\x01\x00") == [ConnAck(0, True)]
