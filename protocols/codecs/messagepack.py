"""MessagePack: a map is one message, an array of maps one message each. Timestamps (extension −1) are times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from protocols.codecs.base import Decoded, Decoder, nothing_decoded
from protocols.codecs.plain import plain
from protocols.codecs.reader import MessageReader
from protocols.codecs.spec import CodecSpec
from protocols.errors import UNREADABLE, DecodeError, found_at
from protocols.limits import JSON_DEPTH_MAX

_decode: Final = msgspec.msgpack.Decoder().decode


def messagepack_decoder(spec: CodecSpec) -> Decoder:
    """Raises SpecError."""
    reader = MessageReader(spec)

    def decode(payloads: Sequence[bytes]) -> Decoded:
        out = nothing_decoded()
        for place, payload in enumerate(payloads):
            try:
                reader.add_value(out, place, payload, plain(_parse(payload)))
            except DecodeError as error:
                out.errors.append((place, error))
        return out

    return decode


def _parse(payload: bytes) -> object:
    try:
        return _decode(payload)
    except RecursionError:
        raise DecodeError(f"MessagePack nested deeper than {JSON_DEPTH_MAX} levels") from None
    except (*UNREADABLE, TypeError, ValueError, OverflowError) as error:
        if "truncated" in str(error):
            raise DecodeError(
                "not MessagePack: the payload ends in the middle of a value", offset=len(payload)
            ) from None
        said = DecodeError(f"not MessagePack: {error}")
        said.offset = found_at(said.detail)
        raise said from None
