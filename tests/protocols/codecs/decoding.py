"""How the codecs' tests look at what is decoded."""

from __future__ import annotations

import json
from typing import Any

from protocols.codecs import CODECS, CodecSpec, Decoded
from protocols.errors import DecodeError


def decode(payload: bytes, spec: CodecSpec) -> Decoded:
    return CODECS[spec.codec](spec)([payload])


def messages(payload: bytes, spec: CodecSpec) -> list[dict[str, Any]]:
    """The data of each message of a payload that decodes."""
    decoded = decode(payload, spec)
    assert not decoded.errors, decoded.errors[0][1].detail
    return [json.loads(data) for data in decoded.data]


def error(payload: bytes, spec: CodecSpec) -> DecodeError:
    """Why a payload does not decode."""
    decoded = decode(payload, spec)
    assert not decoded.data
    assert not decoded.place
    assert not decoded.relative
    return decoded.errors[0][1]
