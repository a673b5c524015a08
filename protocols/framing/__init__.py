"""Framings: what delimits bytes on a line. One file each, and a table by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from protocols.framing.base import Framing
from protocols.framing.checksum import Checksum
from protocols.framing.cobs import CobsFraming
from protocols.framing.fixed import FixedFraming
from protocols.framing.gap import GapFraming
from protocols.framing.length import LengthFraming
from protocols.framing.line import LineFraming
from protocols.framing.marked import MarkedFraming
from protocols.framing.slip import SlipFraming
from protocols.framing.spec import FramingKind, FramingSpec, mark


def make_framing(spec: FramingSpec) -> Framing:
    checksum = Checksum(spec.checksum, spec.checksum_order) if spec.checksum else None
    return _MAKERS[spec.kind](spec, checksum)


def _length(spec: FramingSpec, checksum: Checksum | None) -> Framing:
    return LengthFraming(
        spec.frame_bytes_max,
        spec.length_bytes,
        spec.byte_order,
        counts_itself=spec.counts_itself,
        checksum=checksum,
    )


def _marked(spec: FramingSpec, checksum: Checksum | None) -> Framing:
    escape = mark(spec, "escape")
    return MarkedFraming(
        spec.frame_bytes_max,
        mark(spec, "start"),
        mark(spec, "stop"),
        escape=escape[0] if escape else None,
        checksum=checksum,
    )


_MAKERS: Final[dict[FramingKind, Callable[[FramingSpec, Checksum | None], Framing]]] = {
    "line": lambda spec, checksum: LineFraming(spec.frame_bytes_max, spec.delimiter.encode(), checksum),
    "length": _length,
    "cobs": lambda spec, checksum: CobsFraming(spec.frame_bytes_max, checksum),
    "slip": lambda spec, checksum: SlipFraming(spec.frame_bytes_max, checksum),
    "fixed": lambda spec, checksum: FixedFraming(spec.size, checksum),
    "marked": _marked,
    "gap": lambda spec, checksum: GapFraming(spec.frame_bytes_max, checksum),
}
