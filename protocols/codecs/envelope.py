"""What the REST server records for a message that came by HTTP: a JSON object of `data`, or of a `payload` of any
codec, and `id` and `time` where the client gave them. With an id, it is the message key; without one, the network's own
paths are looked for in the data.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from protocols.codecs.base import Decoded, Decoder, nothing_decoded
from protocols.codecs.device_time import time_ms
from protocols.codecs.json_paths import parse_checked
from protocols.codecs.reader import MessageReader
from protocols.codecs.spec import CodecSpec
from protocols.errors import UNREADABLE, DecodeError
from protocols.limits import JSON_DEPTH_MAX

ENVELOPE: Final = "envelope"


class Envelope(msgspec.Struct, frozen=True, omit_defaults=True):
    data: msgspec.Raw = msgspec.Raw()
    """A JSON object, or an array of them; empty: the payload holds it."""
    id: str | None = None
    time: Any = None
    payload: bytes | None = None
    """As it came, base64."""
    codec: str = ""
    """The payload's; empty: the network's."""


_decode: Final = msgspec.json.Decoder(Envelope).decode


def envelope_decoder(spec: CodecSpec, decoder_for: Callable[[str], Decoder]) -> Decoder:
    """`decoder_for`: gives the decoder of payloads by the name of their codec."""
    reader = MessageReader(spec)
    within: dict[str, Decoder] = {}

    def decode_payload(out: Decoded, place: int, codec: str, payload: bytes) -> None:
        if codec == ENVELOPE:
            raise DecodeError("an envelope in an envelope")
        if codec not in within:
            within[codec] = decoder_for(codec)
        decoded = within[codec]([payload])
        if decoded.errors:
            raise decoded.errors[0][1]
        first = len(out.place)
        out.place.extend([place] * len(decoded.place))
        out.index.extend(decoded.index)
        out.alias.extend(decoded.alias)
        out.key.extend(decoded.key)
        out.time.extend(decoded.time)
        out.data.extend(decoded.data)
        out.relative.extend(first + row for row in decoded.relative)

    def decode(payloads: Sequence[bytes]) -> Decoded:
        out = nothing_decoded()
        for place, payload in enumerate(payloads):
            first = len(out.place)
            try:
                envelope = _open(payload)
                time = None if envelope.time is None else time_ms(envelope.time, "time")
                if envelope.payload is not None:
                    decode_payload(out, place, envelope.codec, envelope.payload)
                else:
                    reader.add_value(out, place, payload, parse_checked(bytes(envelope.data)))
            except DecodeError as error:
                out.errors.append((place, error))
                continue
            for row in range(first, len(out.place)):
                if envelope.id is not None:
                    out.key[row] = ("id", envelope.id)
                if time is not None:
                    out.time[row] = time
            if time is not None:
                del out.relative[bisect.bisect_left(out.relative, first) :]
        return out

    return decode


def _open(payload: bytes) -> Envelope:
    try:
        envelope = _decode(payload)
    except RecursionError:
        raise DecodeError(f"JSON nested deeper than {JSON_DEPTH_MAX} levels") from None
    except UNREADABLE as error:
        raise DecodeError(f"not an envelope: {error}") from None
    if envelope.payload is None and not bytes(envelope.data):
        raise DecodeError("not an envelope: neither data nor payload")
    return envelope
