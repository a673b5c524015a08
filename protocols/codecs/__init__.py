"""Codecs: payload bytes to messages. One file a codec, a table by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from protocols.codecs.base import CodecSpec, Decoded, Decoder, nothing_decoded
from protocols.codecs.envelope import envelope_decoder
from protocols.codecs.json_paths import json_decoder

CODECS: Final[dict[str, Callable[[CodecSpec], Decoder]]] = {"json": json_decoder, "envelope": envelope_decoder}
"""Name to the function that makes a decoder for one network's spec."""

__all__ = ["CODECS", "CodecSpec", "Decoded", "Decoder", "nothing_decoded"]
