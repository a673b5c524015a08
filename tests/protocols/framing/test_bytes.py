"""Bytes as others write them: vectors of the standards, and the catalogue's own check values."""

from __future__ import annotations

import pytest

from protocols.framing import FramingSpec, make_framing
from protocols.framing.checksum import Checksum, computer
from protocols.framing.cobs import stuffed, unstuffed
from protocols.framing.crc_catalog import CATALOG


@pytest.mark.parametrize("name", CATALOG)
def test_a_crc_is_the_catalogues(name: str) -> None:
    assert computer(name)(b"123456789") == CATALOG[name].check


def test_a_checksum_stands_as_the_protocol_has_it() -> None:
    # A read of ten holding registers, from the Modbus specification's family: the low byte of the CRC first.
    assert Checksum("CRC-16/MODBUS").of(bytes.fromhex("11030000000a")) == bytes.fromhex("c75d")
    assert Checksum("CRC-16/MODBUS", "big").of(bytes.fromhex("11030000000a")) == bytes.fromhex("5dc7")
    assert Checksum("CRC-16/XMODEM").of(b"123456789") == bytes.fromhex("31c3")


@pytest.mark.parametrize(
    ("payload", "frame"),
    [
        ("00", "0101"),
        ("0000", "010101"),
        ("00110000", "0102110101"[:6] + "0101"),
        ("11220033", "0311220233"),
        ("11223344", "0511223344"),
        ("11000000", "0211010101"),
    ],
)
def test_cobs_as_its_authors_write_it(payload: str, frame: str) -> None:
    assert stuffed(bytes.fromhex(payload)).hex() == frame
    assert unstuffed(bytes.fromhex(frame)) == bytes.fromhex(payload)


def test_cobs_blocks_of_254_bytes() -> None:
    run = bytes(range(1, 255))
    for payload, frame in (
        (run, b"\xff" + run),
        (b"\0" + run, b"\x01\xff" + run),
        (run + b"\xff", b"\xff" + run + b"\x02\xff"),
        (run[1:] + b"\xff\0", b"\xff" + run[1:] + b"\xff\x01\x01"),
    ):
        assert unstuffed(frame) == payload
        assert unstuffed(stuffed(payload)) == payload
    assert stuffed(run + b"\xff") == b"\xff" + run + b"\x02\xff"
    assert unstuffed(b"\x05\x11") is None


def test_slip_as_rfc_1055_has_it() -> None:
    framing = make_framing(FramingSpec("slip"))
    assert framing.encode(b"a\xc0b\xdbc").hex() == "c061dbdc62dbdd63c0"


def test_a_frame_of_ppp_in_hdlc_like_framing() -> None:
    framing = make_framing(FramingSpec("marked", start="7e", stop="7e", escape="7d", checksum="CRC-16/IBM-SDLC"))
    frame = framing.encode(bytes.fromhex("7e7d"))
    assert frame.hex().startswith("7e7d5e7d5d")
    assert framing.decoder().receive(frame + frame[1:]) == 2 * [bytes.fromhex("7e7d")]


def test_an_oversized_line_takes_nobody_with_it() -> None:
    decoder = make_framing(FramingSpec("line", 4)).decoder()
    assert decoder.receive(b"abcd\r\nabcde\n\nabc\n\r\nab\n") == [b"abcd", b"abc", b"ab"]
