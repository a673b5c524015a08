"""Codecs: payload bytes to messages. One file a codec, a table by name."""

from __future__ import annotations

from protocols.codecs.base import Decoded, Decoder, all_rejected, nothing_decoded
from protocols.codecs.catalog import CODECS, decoder_of
from protocols.codecs.spec import CodecSpec, Layout, LayoutBits, LayoutField, SpecError

__all__ = [
    "CODECS",
    "CodecSpec",
    "Decoded",
    "Decoder",
    "Layout",
    "LayoutBits",
    "LayoutField",
    "SpecError",
    "all_rejected",
    "decoder_of",
    "nothing_decoded",
]
