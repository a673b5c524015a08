"""The codecs by name: one vocabulary for configuration, registry, REST API and commands."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from protocols.codecs.base import Decoder, all_rejected
from protocols.codecs.cayenne import cayenne_decoder
from protocols.codecs.cbor import cbor_decoder
from protocols.codecs.csv_rows import csv_decoder
from protocols.codecs.envelope import ENVELOPE, envelope_decoder
from protocols.codecs.json_paths import json_decoder
from protocols.codecs.key_value import key_value_decoder
from protocols.codecs.layout import layout_decoder
from protocols.codecs.messagepack import messagepack_decoder
from protocols.codecs.registers import registers_decoder
from protocols.codecs.senml import senml_decoder
from protocols.codecs.spec import CodecSpec, SpecError
from protocols.errors import DecodeError


def _envelope_decoder(spec: CodecSpec) -> Decoder:
    return envelope_decoder(spec, partial(decoder_of, spec))


CODECS: Final[dict[str, Callable[[CodecSpec], Decoder]]] = {
    "json": json_decoder,
    "cbor": cbor_decoder,
    "messagepack": messagepack_decoder,
    "senml": senml_decoder,
    "csv": csv_decoder,
    "key-value": key_value_decoder,
    "cayenne-lpp": cayenne_decoder,
    "layout": layout_decoder,
    "registers": registers_decoder,
    ENVELOPE: _envelope_decoder,
}
"""Name to the function that makes a decoder for one network's spec, or raises SpecError."""


def decoder_of(spec: CodecSpec, hint: str = "") -> Decoder:
    """The decoder for records of a network with that spec: by the listener's hint, else by the spec's codec. Where none
    can be made, as the registry is from a newer version, say, each payload is rejected with the reason."""
    name = hint or spec.codec
    make = CODECS.get(name)
    if make is None:
        return all_rejected(DecodeError(f"no codec named {name!r} is known here"))
    try:
        return make(spec)
    except SpecError as error:
        return all_rejected(DecodeError(f"the network's codec cannot work: {error}"))
