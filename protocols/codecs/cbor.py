"""CBOR (RFC 8949): a map is one message, an array of maps one message each; so are several items in a row (a CBOR
sequence, RFC 8742)."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NoReturn

from protocols.codecs.base import Decoded, Decoder, nothing_decoded
from protocols.codecs.plain import plain
from protocols.codecs.reader import MessageReader
from protocols.codecs.spec import CodecSpec
from protocols.errors import DecodeError
from protocols.limits import JSON_DEPTH_MAX, MESSAGES_PER_RECORD_MAX

_TAGS_REFUSED: Final = (5, 25, 28, 29, 30, 35, 36, 43000, 52, 54, 100, 256, 258, 260, 261, 1004)
"""Tags that build things which JSON has no place for, or that share and refer to values: hostile ones grow from a few
bytes to any size (bigfloats, cycles, patterns)."""


def cbor_decoder(spec: CodecSpec) -> Decoder:
    """Raises SpecError."""
    reader = MessageReader(spec)
    parse = cbor_parser()

    def decode(payloads: Sequence[bytes]) -> Decoded:
        out = nothing_decoded()
        for place, payload in enumerate(payloads):
            try:
                reader.add_value(out, place, payload, parse(payload))
            except DecodeError as error:
                out.errors.append((place, error))
        return out

    return decode


def cbor_parser() -> Callable[[bytes], Any]:
    """What a payload holds, as JSON has it; a sequence as an array. The parser raises DecodeError."""
    import cbor2  # only where a network needs it: the gateway has a budget for its memory

    def refuse(_value: Any, _immutable: bool) -> NoReturn:
        raise ValueError("a tag that JSON has no place for")

    refused = dict.fromkeys(_TAGS_REFUSED, refuse)

    def items_of(payload: bytes, read_size: int) -> list[Any]:
        stream = io.BytesIO(payload)
        decoder = cbor2.CBORDecoder(
            stream,
            semantic_decoders=refused,
            read_size=read_size,
            max_depth=JSON_DEPTH_MAX + 1,
            allow_duplicate_keys=False,
        )
        items: list[Any] = []
        try:
            while stream.tell() < len(payload) or not items:
                if len(items) == MESSAGES_PER_RECORD_MAX:
                    raise DecodeError(f"more than {MESSAGES_PER_RECORD_MAX} items in one payload", offset=stream.tell())
                items.append(decoder.decode())
        except (cbor2.CBORError, RecursionError, OverflowError, MemoryError, TypeError, ValueError) as error:
            if read_size > 1:
                return items_of(
                    payload, 1
                )  # byte by byte, which is slower, and then the stream says where it went wrong
            at = stream.tell()
            if isinstance(error, cbor2.CBORDecodeEOF):
                raise DecodeError("not CBOR: the payload ends in the middle of an item", offset=at) from None
            cause = f": {error.__cause__}" if error.__cause__ is not None else ""
            raise DecodeError(f"not CBOR: {error}{cause}", offset=max(at - 1, 0)) from None
        return items

    def parse(payload: bytes) -> Any:
        items = [plain(_untagged(item)) for item in items_of(payload, max(len(payload), 2))]
        return items[0] if len(items) == 1 else items

    def _untagged(value: Any) -> Any:
        """A tag that nobody knows says nothing to us about its value; undefined and simple values are null."""
        kind = type(value)
        if kind is dict or isinstance(value, Mapping):
            return {key: _untagged(item) for key, item in value.items()}
        if kind is list or kind is tuple:
            return [_untagged(item) for item in value]
        if kind is cbor2.CBORTag:
            return _untagged(value.value)
        if value is cbor2.undefined or kind is cbor2.CBORSimpleValue:
            return None
        return value

    return parse
