"""What protocols call the form of a payload, to the codec that reads it: CoAP content-formats (RFC 7252, section 12.3;
IANA CoRE Parameters) and media types of HTTP."""

from __future__ import annotations

from typing import Final

_BY_CONTENT_FORMAT: Final = {
    50: "json",
    60: "cbor",
    63: "cbor",  # application/cbor-seq
    110: "senml",  # application/senml+json
    112: "senml",  # application/senml+cbor
}
CONTENT_FORMATS: Final = (0, 42, *_BY_CONTENT_FORMAT)
"""Those that a payload may say: text and octets, which say nothing of a codec, and those that name one."""

_BY_MEDIA_TYPE: Final = {
    "application/json": "json",
    "application/x-ndjson": "json",
    "application/jsonl": "json",
    "text/json": "json",
    "application/cbor": "cbor",
    "application/cbor-seq": "cbor",
    "application/msgpack": "messagepack",
    "application/x-msgpack": "messagepack",
    "application/vnd.msgpack": "messagepack",
    "application/senml+json": "senml",
    "application/senml+cbor": "senml",
    "text/csv": "csv",
}


def codec_of_content_format(number: int | None) -> str:
    """Empty: it says nothing of the content (text, octets, none, one that is not known): the network's codec counts."""
    return "" if number is None else _BY_CONTENT_FORMAT.get(number, "")


def codec_of_media_type(content_type: str) -> str:
    """Of a Content-Type header, with or without parameters; empty: as above."""
    return _BY_MEDIA_TYPE.get(content_type.partition(";")[0].strip().lower(), "")
