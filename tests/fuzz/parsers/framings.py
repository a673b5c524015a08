"""Every framing, in each way that its tests configure it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from protocols.framing import make_framing
from protocols.framing.base import KEPT_BYTES_MAX, REJECTS_KEPT_MAX, FrameError
from protocols.framing.spec import FramingSpec
from tests.fuzz.target import TAKEN, Parser, Stretch, in_pieces
from tests.protocols.framing.test_framings import SPECS

FRAME_BYTES_MAX: Final = 40
"""Of SPECS."""
ADDED_BYTES_MAX: Final = 20
"""Checksum and marks, escaped, at most."""

PAYLOADS: Final = (b"payload", b"\x02\x03\x10\x7e\x7d", b"\r\n", bytes(7), b"a" * FRAME_BYTES_MAX, b"1234567")
LARGE: Final = (
    FramingSpec("marked", start="02", stop="03", checksum="CRC-16/MODBUS"),
    FramingSpec("marked", start="aa55", stop="55aa"),
    FramingSpec("marked", start="7e", stop="7e", escape="7d", checksum="CRC-16/IBM-SDLC"),
    FramingSpec("marked", start="02", stop="03", escape="10", checksum="CRC-32/ISO-HDLC"),
    FramingSpec("line", checksum="CRC-16/MODBUS"),
    FramingSpec("cobs", checksum="CRC-16/MODBUS"),
    FramingSpec("slip", checksum="CRC-16/MODBUS"),
    FramingSpec("length", checksum="CRC-16/MODBUS"),
)
"""With frames as large as they are by default: what is rejected costs more, the larger a frame may be."""


BYTES: Final = {
    "line": (b"\n", b"a"), "length": (b"\0", b"\xff"), "cobs": (b"\0", b"\1", b"\xff"), "slip": (b"\xc0", b"\xdb"),
    "fixed": (b"a",), "marked": (b"x",),
}  # fmt: skip
"""What means something to a framing, again and again."""


def lines(spec: FramingSpec) -> tuple[bytes, ...]:
    """Frames as the framing makes them, of those payloads that it can carry."""
    framing, found = make_framing(spec), []
    for payload in PAYLOADS:
        try:
            found.append(framing.encode(payload))
        except FrameError:
            continue
    return (b"".join(found), *found)


def read(spec: FramingSpec, pieces: Iterable[bytes], held_bytes_max: int) -> tuple[list[bytes], list[str]]:
    """Frames, and the codes of what was rejected, in any order."""
    decoder = make_framing(spec).decoder()
    frames: list[bytes] = []
    for piece in pieces:
        frames += decoder.receive(piece)
        assert decoder.held_bytes <= held_bytes_max
    frames += decoder.idle()
    assert decoder.held_bytes == 0, "a silence ends all"
    rejects, more = decoder.take_rejects()
    assert len(rejects) <= REJECTS_KEPT_MAX
    assert all(len(reject.data) <= KEPT_BYTES_MAX for reject in rejects)
    return frames, sorted([reject.code for reject in rejects] + [code for code in more for _ in range(more[code])])


def reads(spec: FramingSpec, held_bytes_max: int) -> Callable[[bytes], str]:
    def check(data: bytes) -> str:
        whole = read(spec, [data], held_bytes_max)
        assert read(spec, in_pieces(data), held_bytes_max) == whole, "cut otherwise, it gives something else"
        frames, rejected = whole
        assert all(frames), "a frame without payload is none"
        assert sum(map(len, frames)) <= len(data)
        return rejected[0] if rejected else TAKEN

    return check


def stretches(spec: FramingSpec) -> tuple[Stretch, ...]:
    start, stop = bytes.fromhex(spec.start), bytes.fromhex(spec.stop)
    found = [Stretch(b"", line) for line in lines(spec)[:2]]
    found += [Stretch(b"", byte) for byte in BYTES[spec.kind]]
    if spec.kind == "marked":
        found += [
            Stretch(b"", start),
            Stretch(b"", start, stop + b"12345678"),
            Stretch(start, b"x"),
            Stretch(b"", start + stop),
        ]
    return tuple(found)


def named(spec: FramingSpec) -> str:
    escape = ", escaped" if spec.escape else ""
    return f"framing:{spec.kind} {spec.start}{escape}, large".replace(" ,", ",")


PARSERS: Final = (
    *(
        Parser(
            f"framing:{name}",
            reads(spec, 2 * FRAME_BYTES_MAX + ADDED_BYTES_MAX),
            lines(spec),
            stretches=stretches(spec),
            steps_per_byte=150 if spec.kind == "marked" else 40,
        )
        for name, spec in SPECS.items()
    ),
    *(
        Parser(
            named(spec),
            reads(spec, 2 * spec.frame_bytes_max + ADDED_BYTES_MAX),
            lines(spec),
            stretches=stretches(spec),
            steps_per_byte=150 if spec.kind == "marked" else 40,
        )
        for spec in LARGE
    ),
)
