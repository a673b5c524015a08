"""How a framing is written in a configuration: `framing = {kind = "line"}`."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from protocols.framing.crc_catalog import CATALOG
from protocols.framing.words import ByteOrder
from protocols.limits import PAYLOAD_BYTES_MAX

MARK_BYTES_MAX: Final = 8
"""Of a start, a stop or a delimiter: they have one or two."""

GAP_MS_MAX: Final = 60_000

FramingKind = Literal["line", "length", "cobs", "slip", "fixed", "marked", "gap"]


class FramingSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What marks the frames on a line."""

    kind: Annotated[
        FramingKind,
        Meta(
            description="line: text up to a delimiter; length: a length before each; cobs and slip (RFC 1055): bytes "
            "stuffed; fixed: one size; marked: between start and stop; gap: between silences."
        ),
    ] = "line"
    frame_bytes_max: Annotated[
        int, Meta(ge=1, le=PAYLOAD_BYTES_MAX, description="Largest payload of a frame; longer ones are rejected.")
    ] = 65_536
    delimiter: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=MARK_BYTES_MAX,
            description="Of line: what ends it. A carriage return before a line feed belongs to it.",
        ),
    ] = "\n"
    length_bytes: Annotated[Literal[1, 2, 4], Meta(description="Of length: its size.")] = 2
    byte_order: Annotated[ByteOrder, Meta(description="Of length: which of its bytes comes first.")] = "big"
    counts_itself: Annotated[bool, Meta(description="Of length: it counts its own bytes too.")] = False
    size: Annotated[
        int, Meta(ge=0, le=PAYLOAD_BYTES_MAX, description="Of fixed: payload bytes of each frame; required there.")
    ] = 0
    start: Annotated[str, Meta(description="Of marked: bytes in hex, such as 02.")] = ""
    stop: Annotated[str, Meta(description="Of marked: bytes in hex, such as 03.")] = ""
    escape: Annotated[
        str,
        Meta(
            description="Of marked: a byte in hex, such as 7d; start, stop and it itself are sent within a frame as "
            "this byte and theirs XOR 0x20. Empty: payloads do not hold the stop."
        ),
    ] = ""
    checksum: Annotated[
        str,
        Meta(description="CRC behind each payload, by its catalogue name, such as CRC-16/MODBUS; empty: none."),
    ] = ""
    checksum_order: Annotated[
        ByteOrder | None,
        Meta(description="Which of its bytes comes first; not set: the low one for CRCs that take bits from that end."),
    ] = None
    gap_ms: Annotated[
        int,
        Meta(
            ge=1,
            le=GAP_MS_MAX,
            description="A silence so long ends a frame of gap; with the others, half a frame is given up after it on "
            "a serial port.",
        ),
    ] = 100

    def __post_init__(self) -> None:
        if self.checksum and self.checksum not in CATALOG:
            raise ValueError(f"checksum: {self.checksum!r} is not among {', '.join(CATALOG)}")
        if self.kind == "fixed" and not self.size:
            raise ValueError("size: required where kind is fixed")
        if self.kind == "marked":
            for name in ("start", "stop"):
                if not 0 < len(mark(self, name)) <= MARK_BYTES_MAX:
                    raise ValueError(f"{name}: 1 to {MARK_BYTES_MAX} bytes in hex are required where kind is marked")
            self._check_escape()

    def _check_escape(self) -> None:
        escape, start, stop = (mark(self, name) for name in ("escape", "start", "stop"))
        if not escape:
            if start == stop:
                raise ValueError("stop: the same as start; that needs an escape")
            return
        if not len(escape) == len(start) == len(stop) == 1:
            raise ValueError("escape: start, stop and escape have one byte each")
        sent = {byte ^ 0x20 for byte in escape + start + stop}
        if escape in (start, stop) or sent & {*escape, *start, *stop}:
            raise ValueError("escape: it, start and stop must differ, XOR 0x20 too")


def mark(spec: FramingSpec, name: str) -> bytes:
    """The bytes that a setting in hex stands for. Raises ValueError."""
    try:
        return bytes.fromhex(getattr(spec, name))
    except ValueError:
        raise ValueError(f"{name}: {getattr(spec, name)!r} is no bytes in hex") from None
