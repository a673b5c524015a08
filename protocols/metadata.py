"""What a protocol says beside a payload, such as MQTT's user properties, on its way to whoever reads the message:
it stands in each message's data as the attribute METADATA, so that history, scripts and the tail have it without a
column of their own."""

from __future__ import annotations

from typing import Final

import msgspec

from protocols.errors import UNREADABLE

METADATA: Final = "$metadata"

_decode: Final = msgspec.msgpack.Decoder(dict[str, str]).decode
_encode: Final = msgspec.msgpack.Encoder().encode
_HEAD: Final = b'"' + METADATA.encode() + b'":'


def encode_metadata(metadata: dict[str, str]) -> bytes:
    """As it stands in a batch (batch.py)."""
    return _encode(metadata)


def decode_metadata(data: bytes) -> dict[str, str]:
    """Of one record; nothing where there is none, or none that can be read: any process of the gateway's machine may
    publish records."""
    if not data:
        return {}
    try:
        found = _decode(data)
    except UNREADABLE:
        return {}
    if b"\0" in data:  # no database text can hold it, and what is beside a payload must not stop it
        return {name.replace("\0", ""): text.replace("\0", "") for name, text in found.items()}
    return found


def with_metadata(data: bytes, metadata: bytes) -> bytes:
    """`data`: a JSON object, the attributes of a message."""
    found = decode_metadata(metadata)
    if not found:
        return data
    return data[:-1] + (b"" if data == b"{}" else b",") + _HEAD + msgspec.json.encode(found) + b"}"
