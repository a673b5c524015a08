"""What the REST server records for a message that came by HTTP: a JSON object of `data`, and `id` and `time` where the
client gave them. With an id, it is the message key; without one, the network's own paths are looked for in the data.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from protocols.codecs.base import Decoded, Decoder, nothing_decoded
from protocols.codecs.device_time import time_ms
from protocols.codecs.json_paths import parse_checked
from protocols.codecs.reader import MessageReader
from protocols.codecs.spec import CodecSpec
from protocols.errors import UNREADABLE, DecodeError
from protocols.limits import JSON_DEPTH_MAX


class Envelope(msgspec.Struct, frozen=True, omit_defaults=True):
    data: msgspec.Raw
    """A JSON object, or an array of them."""
    id: str | None = None
    time: Any = None


_decode: Final = msgspec.json.Decoder(Envelope).decode


def envelope_decoder(spec: CodecSpec) -> Decoder:
    reader = MessageReader(spec)

    def decode(payloads: Sequence[bytes]) -> Decoded:
        out = nothing_decoded()
        for place, payload in enumerate(payloads):
            try:
                envelope = _open(payload)
                time = None if envelope.time is None else time_ms(envelope.time, "time")
                first = len(out.place)
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
        return _decode(payload)
    except RecursionError:
        raise DecodeError(f"JSON nested deeper than {JSON_DEPTH_MAX} levels") from None
    except UNREADABLE as error:
        raise DecodeError(f"not an envelope: {error}") from None
